import ArgumentParser

/// `checkpoint-engine`.
struct RootCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "checkpoint-engine",
        abstract: "Put new weights into running inference engines, without a restart.",
        discussion: """
            A checkpoint (safetensors files) is read into shared memory once; the workers of the \
            engines take the tensors from there. An engine has to run the worker extension of the \
            Python package checkpoint-engine:

              VLLM_SERVER_DEV_MODE=1 vllm serve MODEL \\
                --worker-extension-cls checkpoint_engine.worker.VllmColocateWorkerExtension

            One update, then exit:

              checkpoint-engine update --checkpoint-path /models/new \\
                --endpoint http://127.0.0.1:8000

            A daemon that keeps checkpoints and takes orders over HTTP:

              checkpoint-engine serve

            A new host, which takes its weights from hosts that are serving:

              checkpoint-engine join --source http://10.0.0.7:19731 \
                --checkpoint-name step-100 --endpoint http://127.0.0.1:8000

            Look before you leap:

              checkpoint-engine inspect /models/new
              checkpoint-engine doctor

            Measure this machine:

              checkpoint-engine bench --model qwen3-32b --tensor-parallel 2

            Each flag can be set by the variable that its help names in brackets, as in \
            CHECKPOINT_ENGINE_TIMEOUT=60; the command line wins. Exit codes: 0 success, 1 failure, \
            2 wrong usage, 130 after Ctrl-C, 143 after SIGTERM (serve: 0, it was asked to stop).
            """,
        version: Version.current,
        subcommands: [
            UpdateCommand.self, ServeCommand.self, JoinCommand.self, InspectCommand.self,
            DoctorCommand.self,
            DemoCommand.self, BenchCommand.self, ReferenceEngineCommand.self,
            ReferenceWorkerCommand.self,
        ])
}
