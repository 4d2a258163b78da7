extension ZeroMQTable {
    /// Opens ZeroMQ and resolves every function; names all that are missing.
    static func load(from names: [String]) throws(WorkerError) -> (ZeroMQTable, path: String) {
        var library: NativeLibrary
        switch NativeLibrary.open(anyOf: names) {
        case .success(let opened): library = opened
        case .failure(let failure):
            throw WorkerError(
                .libraryMissing,
                "ZeroMQ was not found: \(failure.message). Install the package libzmq5 or the "
                    + "Python package pyzmq, or name the file with --zmq-library",
                cause: failure.cause)
        }
        guard let table = ZeroMQTable(&library) else {
            throw WorkerError(
                .libraryMissing,
                "the ZeroMQ library \(library.name) lacks "
                    + library.missing.joined(separator: ", ") + "; version 4.3 is needed")
        }
        return (table, library.name)
    }

    /// Fails after having asked for every function, so that all missing ones are known.
    private init?(_ library: inout NativeLibrary) {
        // The type of each property is that of the function of this name in zmq.h.
        let contextNew: ContextNew? = library.resolve("zmq_ctx_new")
        let contextTerminate: ContextTerminate? = library.resolve("zmq_ctx_term")
        let socketNew: SocketNew? = library.resolve("zmq_socket")
        let socketClose: SocketClose? = library.resolve("zmq_close")
        let setOption: SetOption? = library.resolve("zmq_setsockopt")
        let getOption: GetOption? = library.resolve("zmq_getsockopt")
        let bind: Bind? = library.resolve("zmq_bind")
        let connect: Connect? = library.resolve("zmq_connect")
        let monitor: Monitor? = library.resolve("zmq_socket_monitor")
        let messageInit: MessageInit? = library.resolve("zmq_msg_init")
        let messageInitSize: MessageInitSize? = library.resolve("zmq_msg_init_size")
        let messageCopy: MessageCopy? = library.resolve("zmq_msg_copy")
        let messageClose: MessageClose? = library.resolve("zmq_msg_close")
        let messageData: MessageData? = library.resolve("zmq_msg_data")
        let messageSize: MessageSize? = library.resolve("zmq_msg_size")
        let messageSend: MessageSend? = library.resolve("zmq_msg_send")
        let messageReceive: MessageReceive? = library.resolve("zmq_msg_recv")
        let poll: Poll? = library.resolve("zmq_poll")
        let errorNumber: ErrorNumber? = library.resolve("zmq_errno")
        let errorText: ErrorText? = library.resolve("zmq_strerror")
        let version: Version? = library.resolve("zmq_version")
        guard
            let contextNew,
            let contextTerminate,
            let socketNew,
            let socketClose,
            let setOption,
            let getOption,
            let bind,
            let connect,
            let monitor,
            let messageInit,
            let messageInitSize,
            let messageCopy,
            let messageClose,
            let messageData,
            let messageSize,
            let messageSend,
            let messageReceive,
            let poll,
            let errorNumber,
            let errorText,
            let version
        else { return nil }
        self.contextNew = contextNew
        self.contextTerminate = contextTerminate
        self.socketNew = socketNew
        self.socketClose = socketClose
        self.setOption = setOption
        self.getOption = getOption
        self.bind = bind
        self.connect = connect
        self.monitor = monitor
        self.messageInit = messageInit
        self.messageInitSize = messageInitSize
        self.messageCopy = messageCopy
        self.messageClose = messageClose
        self.messageData = messageData
        self.messageSize = messageSize
        self.messageSend = messageSend
        self.messageReceive = messageReceive
        self.poll = poll
        self.errorNumber = errorNumber
        self.errorText = errorText
        self.version = version
    }
}
