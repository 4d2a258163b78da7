import FoundationEssentials
import Hummingbird
import NIOCore

/// What is known of one request beside the request itself.
struct CallContext: RequestContext {
    var coreContext: CoreRequestContextStorage
    /// The connection that it came over.
    let channel: any Channel
    /// Who sent it; the access rules find out.
    var party = Party.stranger

    init(source: ApplicationRequestContextSource) {
        coreContext = CoreRequestContextStorage(source: source)
        channel = source.channel
    }
}
