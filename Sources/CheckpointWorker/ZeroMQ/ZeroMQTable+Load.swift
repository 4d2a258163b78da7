import CheckpointNative

extension ZeroMQTable {
    /// Opens ZeroMQ and resolves every function; names all that are missing.
    static func load(from names: [String]) throws(WorkerError) -> (ZeroMQTable, path: String) {
        var library: NativeLibrary
        do throws(NativeLibrary.Failure) {
            library = try NativeLibrary(anyOf: names)
        } catch {
            throw WorkerError(
                .libraryMissing,
                "ZeroMQ was not found: none of the libraries "
                    + "\(error.names.joined(separator: ", ")) can be loaded. Install the package "
                    + "libzmq5 or the Python package pyzmq, or name the file with --zmq-library",
                cause: error.answers.joined(separator: "\n"))
        }
        guard let table = ZeroMQTable(&library) else {
            throw WorkerError(
                .libraryMissing,
                "the ZeroMQ library \(library.name) lacks "
                    + library.missing.joined(separator: ", ") + "; version 4.3 is needed")
        }
        return (table, library.name)
    }

    /// Fails after having asked for every function, so that all missing ones are known. The type of each
    /// property is that of the function of its name in zmq.h.
    private init?(_ library: inout NativeLibrary) {
        let contextNew: ContextNew? = unsafe library.resolve("zmq_ctx_new")
        let contextSet: ContextSet? = unsafe library.resolve("zmq_ctx_set")
        let contextTerminate: ContextTerminate? = unsafe library.resolve("zmq_ctx_term")
        let socketNew: SocketNew? = unsafe library.resolve("zmq_socket")
        let socketClose: SocketClose? = unsafe library.resolve("zmq_close")
        let setOption: SetOption? = unsafe library.resolve("zmq_setsockopt")
        let getOption: GetOption? = unsafe library.resolve("zmq_getsockopt")
        let bind: Bind? = unsafe library.resolve("zmq_bind")
        let connect: Connect? = unsafe library.resolve("zmq_connect")
        let monitor: Monitor? = unsafe library.resolve("zmq_socket_monitor")
        let messageInit: MessageInit? = unsafe library.resolve("zmq_msg_init")
        let messageInitSize: MessageInitSize? = unsafe library.resolve("zmq_msg_init_size")
        let messageCopy: MessageCopy? = unsafe library.resolve("zmq_msg_copy")
        let messageClose: MessageClose? = unsafe library.resolve("zmq_msg_close")
        let messageData: MessageData? = unsafe library.resolve("zmq_msg_data")
        let messageSize: MessageSize? = unsafe library.resolve("zmq_msg_size")
        let messageSend: MessageSend? = unsafe library.resolve("zmq_msg_send")
        let messageReceive: MessageReceive? = unsafe library.resolve("zmq_msg_recv")
        let poll: Poll? = unsafe library.resolve("zmq_poll")
        let errorNumber: ErrorNumber? = library.resolve("zmq_errno")
        let errorText: ErrorText? = unsafe library.resolve("zmq_strerror")
        let version: Version? = unsafe library.resolve("zmq_version")
        guard
            let contextNew = unsafe contextNew,
            let contextSet = unsafe contextSet,
            let contextTerminate = unsafe contextTerminate,
            let socketNew = unsafe socketNew,
            let socketClose = unsafe socketClose,
            let setOption = unsafe setOption,
            let getOption = unsafe getOption,
            let bind = unsafe bind,
            let connect = unsafe connect,
            let monitor = unsafe monitor,
            let messageInit = unsafe messageInit,
            let messageInitSize = unsafe messageInitSize,
            let messageCopy = unsafe messageCopy,
            let messageClose = unsafe messageClose,
            let messageData = unsafe messageData,
            let messageSize = unsafe messageSize,
            let messageSend = unsafe messageSend,
            let messageReceive = unsafe messageReceive,
            let poll = unsafe poll,
            let errorNumber,
            let errorText = unsafe errorText,
            let version = unsafe version
        else { return nil }
        unsafe self.contextNew = unsafe contextNew
        unsafe self.contextSet = unsafe contextSet
        unsafe self.contextTerminate = unsafe contextTerminate
        unsafe self.socketNew = unsafe socketNew
        unsafe self.socketClose = unsafe socketClose
        unsafe self.setOption = unsafe setOption
        unsafe self.getOption = unsafe getOption
        unsafe self.bind = unsafe bind
        unsafe self.connect = unsafe connect
        unsafe self.monitor = unsafe monitor
        unsafe self.messageInit = unsafe messageInit
        unsafe self.messageInitSize = unsafe messageInitSize
        unsafe self.messageCopy = unsafe messageCopy
        unsafe self.messageClose = unsafe messageClose
        unsafe self.messageData = unsafe messageData
        unsafe self.messageSize = unsafe messageSize
        unsafe self.messageSend = unsafe messageSend
        unsafe self.messageReceive = unsafe messageReceive
        unsafe self.poll = unsafe poll
        self.errorNumber = errorNumber
        unsafe self.errorText = unsafe errorText
        unsafe self.version = unsafe version
    }
}
