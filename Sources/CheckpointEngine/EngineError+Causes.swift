import CheckpointDevice
import CheckpointFiles
import CheckpointHosts
import CheckpointWorker

/// The borders to the targets underneath: their errors become this target's.
extension EngineError {
    init(_ error: DeviceError) {
        switch error.code {
        case .insufficientMemory: self.init(.insufficientMemory, error.description)
        case .libraryMissing, .deviceFailed, .peerLost: self.init(.system, error.description)
        case .cancelled: self.init(.cancelled, error.description)
        case .systemCall: self.init(.system, error.description)
        case .unusablePath: self.init(.system, error.description)
        }
    }

    init(_ error: HostError) {
        switch error.code {
        case .hostLost, .hostFailed, .protocolViolation: self.init(.hostFailed, error.message)
        case .deadlineExceeded: self.init(.deadlineExceeded, error.message)
        case .invalidArgument: self.init(.invalidArgument, error.message)
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
            case .hostFailed: .hostFailed
            case .sourceFailed: .sourceFailed
            case .cancelled: .cancelled
            case .invalidArgument: .invalidArgument
            }
        self.init(code, error.message, cause: error.cause)
    }
}
