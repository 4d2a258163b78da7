import CheckpointDevice
import CheckpointFiles
import CheckpointWorker

/// The borders to the targets underneath: their errors become this target's.
extension EngineError {
    init(_ error: DeviceError) {
        switch error.code {
        case .insufficientMemory: self.init(.insufficientMemory, error.description)
        case .libraryMissing, .deviceFailed: self.init(.system, error.description)
        case .cancelled: self.init(.cancelled, error.description)
        case .systemCall: self.init(.system, error.description)
        case .unusablePath: self.init(.system, error.description)
        }
    }

    init(_ error: FilesError) {
        self.init(
            error.code == .cancelled ? .cancelled : .invalidCheckpoint, error.description)
    }

    init(_ error: WorkerError) {
        let code: Code =
            switch error.code {
            case .libraryMissing, .callFailed: .system
            case .protocolViolation, .workerFailed: .workerFailed
            case .workerLost: .workerLost
            case .engineUnreachable: .engineUnreachable
            case .engineFailed: .engineFailed
            case .deadlineExceeded: .deadlineExceeded
            case .cancelled: .cancelled
            case .invalidArgument: .invalidArgument
            }
        self.init(code, error.message, cause: error.cause)
    }
}
