import CheckpointDevice
import CheckpointFiles
import CheckpointHosts
import CheckpointNative
import CheckpointWorker

/// The borders to the targets underneath: their errors become this target's.
extension EngineError.Code {
    /// What the system lacked, when that was no part of a checkpoint.
    init(_ fault: SystemFault) {
        self =
            switch fault {
            case .memory: .insufficientMemory
            case .descriptors: .insufficientResources
            case .permission: .permissionDenied
            case .path, .device: .system
            }
    }
}

extension EngineError {
    init(_ error: DeviceError) {
        switch error.code {
        case .insufficientMemory: self.init(.insufficientMemory, error.description)
        case .insufficientResources: self.init(.insufficientResources, error.description)
        case .libraryMissing, .deviceFailed, .peerLost: self.init(.system, error.description)
        case .cancelled: self.init(.cancelled, error.description)
        case .systemCall, .unusablePath:
            let fault = error.errorNumber.map(SystemFault.init)
            self.init(fault.map(Code.init) ?? .system, error.description)
        }
    }

    init(_ error: HostError) {
        switch error.code {
        case .hostLost, .hostFailed, .protocolViolation: self.init(.hostFailed, error.message)
        case .deadlineExceeded: self.init(.deadlineExceeded, error.message)
        case .invalidArgument: self.init(.invalidArgument, error.message)
        case .cancelled: self.init(.cancelled, error.message)
        }
    }

    init(_ error: FilesError) {
        let code: Code =
            switch error.code {
            case .missing, .notACheckpoint, .malformed, .wrongLength, .indexMismatch,
                .duplicateTensor, .changed:
                .invalidCheckpoint
            case .insufficientMemory: .insufficientMemory
            case .insufficientDescriptors: .insufficientResources
            case .permissionDenied: .permissionDenied
            case .system: .system
            case .cancelled: .cancelled
            }
        self.init(code, error.description)
    }

    init(_ error: WorkerError) {
        let code: Code =
            switch error.code {
            case .libraryMissing, .callFailed: .system
            case .insufficientResources: .insufficientResources
            case .protocolViolation, .workerFailed: .workerFailed
            case .workerLost: .workerLost
            case .engineUnreachable: .engineUnreachable
            case .engineFailed, .engineRefused: .engineFailed
            case .deadlineExceeded: .deadlineExceeded
            case .hostFailed: .hostFailed
            case .sourceFailed: .sourceFailed
            case .checkpointChanged: .invalidCheckpoint
            case .cancelled: .cancelled
            case .invalidArgument: .invalidArgument
            }
        self.init(code, error.message, cause: error.cause)
    }
}
