import CheckpointEngine
import Hummingbird

extension ControlError {
    /// The HTTP status that tells the same as the code. The only place that maps one to the other.
    var status: HTTPResponse.Status {
        switch code {
        case .engine(let code):
            switch code {
            case .invalidArgument: .badRequest
            case .invalidCheckpoint: .unprocessableContent
            case .notFound: .notFound
            case .alreadyExists, .busy: .conflict
            case .insufficientMemory: HTTPResponse.Status(code: 507)
            case .permissionDenied: .forbidden
            case .insufficientResources: .serviceUnavailable
            case .system: .internalServerError
            case .engineUnreachable, .cancelled: .serviceUnavailable
            case .engineFailed, .workerFailed, .workerLost: .badGateway
            case .hostFailed, .sourceFailed: .badGateway
            case .deadlineExceeded: .gatewayTimeout
            }
        case .unauthorized: .unauthorized
        case .forbidden: .forbidden
        case .overloaded: .serviceUnavailable
        case .noRoute: .notFound
        case .methodNotAllowed: .methodNotAllowed
        case .contentTooLarge: .contentTooLarge
        case .listenFailed, .internalError: .internalServerError
        }
    }

    /// The code as clients see it.
    var codeName: String {
        switch code {
        case .engine(let code): code.rawValue
        case .unauthorized: "unauthorized"
        case .forbidden: "forbidden"
        case .overloaded: "overloaded"
        case .noRoute: "no_route"
        case .methodNotAllowed: "method_not_allowed"
        case .contentTooLarge: "content_too_large"
        case .listenFailed: "listen_failed"
        case .internalError: "internal_error"
        }
    }
}
