import CheckpointEngine
import Hummingbird
import Testing

@testable import CheckpointControl

@Suite("Statuses of failures")
struct ErrorStatusTests {
    @Test func everyEngineCodeHasItsStatus() {
        let expected: [EngineError.Code: Int] = [
            .invalidArgument: 400, .invalidCheckpoint: 422, .notFound: 404, .alreadyExists: 409,
            .busy: 409, .insufficientMemory: 507, .system: 500, .engineUnreachable: 503,
            .engineFailed: 502, .workerFailed: 502, .workerLost: 502, .deadlineExceeded: 504,
            .cancelled: 503, .hostFailed: 502, .sourceFailed: 502,
            .insufficientResources: 503, .permissionDenied: 403,
        ]
        for code in EngineError.Code.allCases {
            let error = ControlError(EngineError(code, "text"))
            #expect(error.status.code == expected[code], "\(code)")
            #expect(error.codeName == code.rawValue)
        }
    }

    @Test func theFailureOfAnUpdateKeepsItsCodeCauseAndID() {
        let failure = UpdateStatus.Failure(
            code: "worker_failed", message: "CPU-0 failed", cause: "Traceback")
        let error = ControlError(failure, update: "u-1")
        #expect(error.status.code == 502)
        #expect(error.update == "u-1")
        #expect(error.cause == "Traceback")
        let strange = UpdateStatus.Failure(code: "later", message: "m", cause: nil)
        #expect(ControlError(strange, update: "u-2").status.code == 500)
    }

    @Test func namesOfCodesAreUnique() {
        let codes: [ControlError.Code] =
            EngineError.Code.allCases.map { .engine($0) } + [
                .unauthorized, .forbidden, .noRoute, .methodNotAllowed, .contentTooLarge,
                .listenFailed, .internalError,
            ]
        let names = codes.map { ControlError($0, "text").codeName }
        #expect(Set(names).count == names.count)
    }
}
