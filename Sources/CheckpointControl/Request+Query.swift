import Hummingbird

extension Request {
    /// Refuses parameters after the path, for routes that take none.
    func refuseQuery() throws(ControlError) {
        guard let query = uri.query, !query.isEmpty else { return }
        throw .invalid("\(uri.path) takes no parameters, got ?\(query.prefix(200))")
    }

    /// The only parameter of a route, `true` or `false`; false where it is absent.
    func flag(_ name: String) throws(ControlError) -> Bool {
        guard let query = uri.query, !query.isEmpty else { return false }
        switch query {
        case "\(name)=true", "\(name)=1": return true
        case "\(name)=false", "\(name)=0": return false
        default:
            throw .invalid(
                "\(uri.path) takes the parameter ?\(name)=true or false, got ?\(query.prefix(200))")
        }
    }

    /// The only parameter of a route, a text of at most 1000 bytes; `nil` where it is absent.
    func text(_ name: String) throws(ControlError) -> String? {
        guard let query = uri.query, !query.isEmpty else { return nil }
        guard uri.queryParameters.count == 1, let value = uri.queryParameters[Substring(name)],
            value.utf8.count <= 1000
        else {
            throw .invalid(
                "\(uri.path) takes the parameter ?\(name)= with a text of at most 1000 bytes, got "
                    + "?\(query.prefix(200))")
        }
        return String(value)
    }

    /// The only parameter of a route, a number of seconds from 0 to `max`; `nil` where it is absent.
    func seconds(_ name: String, max: Double) throws(ControlError) -> Double? {
        guard let query = uri.query, !query.isEmpty else { return nil }
        guard query.hasPrefix("\(name)="), let seconds = Double(query.dropFirst(name.count + 1)),
            (0...max).contains(seconds)
        else {
            throw .invalid(
                "\(uri.path) takes the parameter ?\(name)= with 0 to \(Int(max)) seconds, got "
                    + "?\(query.prefix(200))")
        }
        return seconds
    }

    /// The only parameter of a route, one of `values`; the first where it is absent.
    func choice(_ name: String, of values: [String]) throws(ControlError) -> String {
        guard let query = uri.query, !query.isEmpty else { return values.first ?? "" }
        if let value = values.first(where: { query == "\(name)=\($0)" }) { return value }
        throw .invalid(
            "\(uri.path) takes the parameter ?\(name)= one of "
                + "\(values.joined(separator: ", ")), got ?\(query.prefix(200))")
    }
}
