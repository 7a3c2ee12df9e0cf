public import Foundation

/// JSON-RPC 2.0 (jsonrpc.org/specification), one object a line, without batches.
public enum JSONRPC {
    /// The longest line that is accepted, in bytes.
    public static let maximumLineBytes = 1 << 20
    static let version = "2.0"

    /// What a request begins with; its parameters depend on the method.
    public struct Head: Codable, Hashable, Sendable {
        public var jsonrpc: String
        /// Absent for notifications.
        public var id: Int?
        public var method: String
    }

    private struct Request<Parameters: Encodable>: Encodable {
        var jsonrpc = JSONRPC.version
        var id: Int?
        var method: String
        var params: Parameters
    }

    private struct Parameters<Body: Decodable>: Decodable { var params: Body }

    private struct Success<Body: Encodable>: Encodable {
        var jsonrpc = JSONRPC.version
        var id: Int?
        var result: Body
    }

    private struct Failure: Encodable {
        var jsonrpc = JSONRPC.version
        var id: Int?
        var error: Fault
    }

    private struct Reply<Body: Decodable>: Decodable {
        var id: Int?
        var result: Body?
        var error: Fault?
    }

    /// Why a request was not carried out.
    public struct Fault: Error, Codable, Hashable, Sendable, CustomStringConvertible {
        /// JSON-RPC's numbers from -32768 to -32000; ours from 1 on.
        public var code: Int
        /// A sentence.
        public var message: String

        public init(_ code: Int, _ message: String) {
            self.code = code
            self.message = message
        }

        public static let parseError = -32700
        public static let invalidRequest = -32600
        public static let methodNotFound = -32601
        public static let invalidParameters = -32602
        /// The request was understood and could not be carried out.
        public static let refused = 1
        /// The caller may not do this.
        public static let notPermitted = 2

        public var description: String { message }
    }

    /// A request, or a notification if it has no number, as a line.
    public static func encode(_ method: String, _ parameters: some Encodable, id: Int?) throws -> [UInt8] {
        try line(Request(id: id, method: method, params: parameters))
    }

    /// The answer to a request that succeeded, as a line.
    public static func encode(result: some Encodable, id: Int?) throws -> [UInt8] {
        try line(Success(id: id, result: result))
    }

    /// The answer to a request that failed, as a line.
    public static func encode(_ fault: Fault, id: Int?) throws -> [UInt8] {
        try line(Failure(id: id, error: fault))
    }

    /// Reads what a line begins with.
    public static func head(of line: Data) throws(Fault) -> Head {
        let head: Head
        do {
            head = try JSONDecoder().decode(Head.self, from: line)
        } catch {
            throw Fault(Fault.parseError, "this is no JSON-RPC request")
        }
        guard head.jsonrpc == version else { throw Fault(Fault.invalidRequest, "this is not JSON-RPC 2.0") }
        return head
    }

    /// Reads a request's parameters.
    public static func parameters<Body: Decodable>(of line: Data, as type: Body.Type) throws(Fault) -> Body {
        do {
            return try JSONDecoder().decode(Parameters<Body>.self, from: line).params
        } catch {
            throw Fault(Fault.invalidParameters, "the parameters are not those of this method")
        }
    }

    /// Reads an answer.
    ///
    /// - Throws: the fault that it tells of, or that it is none.
    public static func result<Body: Decodable>(of line: Data, as type: Body.Type) throws(Fault) -> Body {
        let reply: Reply<Body>
        do {
            reply = try JSONDecoder().decode(Reply<Body>.self, from: line)
        } catch {
            throw Fault(Fault.parseError, "the supervisor's answer cannot be read")
        }
        if let fault = reply.error { throw fault }
        guard let result = reply.result else { throw Fault(Fault.parseError, "the supervisor's answer is empty") }
        return result
    }

    private static func line(_ value: some Encodable) throws -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        return Array(try encoder.encode(value)) + [UInt8(ascii: "\n")]
    }
}
