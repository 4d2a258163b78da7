import CNative

/// The functions of ZeroMQ that the worker link calls, resolved at run time.
///
/// Source: zmq.h of version 4.3. Sockets belong to one thread; contexts may be used from all.
@safe
struct ZeroMQTable: Sendable {
    typealias Handle = UnsafeMutableRawPointer
    typealias Message = UnsafeMutablePointer<ce_zmq_msg>

    typealias ContextNew = @convention(c) () -> Handle?
    typealias ContextSet = @convention(c) (Handle?, CInt, CInt) -> CInt
    typealias ContextTerminate = @convention(c) (Handle?) -> CInt
    typealias SocketNew = @convention(c) (Handle?, CInt) -> Handle?
    typealias SocketClose = @convention(c) (Handle?) -> CInt
    typealias SetOption = @convention(c) (Handle?, CInt, UnsafeRawPointer?, Int) -> CInt
    typealias GetOption =
        @convention(c) (Handle?, CInt, UnsafeMutableRawPointer?, UnsafeMutablePointer<Int>?) -> CInt
    typealias Bind = @convention(c) (Handle?, UnsafePointer<CChar>?) -> CInt
    typealias Connect = @convention(c) (Handle?, UnsafePointer<CChar>?) -> CInt
    typealias Monitor = @convention(c) (Handle?, UnsafePointer<CChar>?, CInt) -> CInt
    typealias MessageInit = @convention(c) (Message?) -> CInt
    typealias MessageInitSize = @convention(c) (Message?, Int) -> CInt
    typealias MessageCopy = @convention(c) (Message?, Message?) -> CInt
    typealias MessageClose = @convention(c) (Message?) -> CInt
    typealias MessageData = @convention(c) (Message?) -> Handle?
    typealias MessageSize = @convention(c) (Message?) -> Int
    typealias MessageSend = @convention(c) (Message?, Handle?, CInt) -> CInt
    typealias MessageReceive = @convention(c) (Message?, Handle?, CInt) -> CInt
    typealias Poll =
        @convention(c) (UnsafeMutablePointer<ce_zmq_pollitem>?, CInt, CLong) -> CInt
    typealias ErrorNumber = @convention(c) () -> CInt
    typealias ErrorText = @convention(c) (CInt) -> UnsafePointer<CChar>?
    typealias Version =
        @convention(c) (
            UnsafeMutablePointer<CInt>?, UnsafeMutablePointer<CInt>?, UnsafeMutablePointer<CInt>?
        ) -> Void

    let contextNew: ContextNew
    let contextSet: ContextSet
    let contextTerminate: ContextTerminate
    let socketNew: SocketNew
    let socketClose: SocketClose
    let setOption: SetOption
    let getOption: GetOption
    let bind: Bind
    let connect: Connect
    let monitor: Monitor
    let messageInit: MessageInit
    let messageInitSize: MessageInitSize
    let messageCopy: MessageCopy
    let messageClose: MessageClose
    let messageData: MessageData
    let messageSize: MessageSize
    let messageSend: MessageSend
    let messageReceive: MessageReceive
    let poll: Poll
    let errorNumber: ErrorNumber
    let errorText: ErrorText
    let version: Version

    /// The text of the last error on this thread, with its number.
    func lastError() -> String {
        let number = errorNumber()
        // SAFETY: the library returns a constant string or nil.
        guard let text = unsafe errorText(number) else { return "error \(number)" }
        return unsafe String(cString: text) + ", errno \(number)"
    }

    func failure(_ call: String, _ what: String) -> WorkerError {
        WorkerError(.callFailed, "\(what): \(call) failed: \(lastError())")
    }
}
