public import Platform

/// Users or groups of a driver as those of the host: ranges, as user namespaces have them.
public struct IDMap: Sendable, Equatable {
    /// Numbers from `guest` on are those from `host` on.
    public struct Range: Sendable, Equatable {
        public var guest: UInt32
        public var host: UInt32
        /// How many, at least one.
        public var count: UInt32

        public init(guest: UInt32, host: UInt32, count: UInt32) {
            self.guest = guest
            self.host = host
            self.count = count
        }
    }

    /// What the driver is shown where it has no number for a user of the host: the kernel's overflowuid.
    static let unknown: UInt32 = 65534
    /// As many as /proc/PID/uid_map takes.
    public static let maximumRanges = 340

    /// Empty: every number stands for itself.
    public let ranges: [Range]

    /// Every number stands for itself.
    public static let identity = IDMap(unchecked: [])

    private init(unchecked ranges: [Range]) { self.ranges = ranges }

    /// - Throws: a sentence, when ranges overlap, are empty, leave 32 bits or name 4294967295, which is no user.
    public init(_ ranges: [Range]) throws(SystemError) {
        guard ranges.count <= Self.maximumRanges else {
            throw Self.wrong("there are more than \(Self.maximumRanges) ranges")
        }
        for (index, range) in ranges.enumerated() {
            let last = UInt64(max(range.guest, range.host)) + UInt64(range.count)
            guard range.count > 0, last <= UInt64(UInt32.max) else {
                throw Self.wrong("\(range.guest):\(range.host):\(range.count) is empty or too long")
            }
            for other in ranges[..<index]
            where Self.overlap(range.guest, range.count, other.guest, other.count)
                || Self.overlap(range.host, range.count, other.host, other.count)
            {
                throw Self.wrong("\(range.guest):\(range.host):\(range.count) overlaps another range")
            }
        }
        self.ranges = ranges
    }

    /// Reads `GUEST:HOST:COUNT`, several with commas between them. A colon around each is allowed, as virtiofsd's
    /// --uid-map has it.
    public init(parsing text: String) throws(SystemError) {
        var ranges: [Range] = []
        for part in text.split(separator: ",") {
            let fields = part.split(separator: ":")
            guard fields.count == 3, let guest = UInt32(fields[0]), let host = UInt32(fields[1]),
                let count = UInt32(fields[2])
            else { throw Self.wrong("\(part) is not GUEST:HOST:COUNT") }
            ranges.append(Range(guest: guest, host: host, count: count))
        }
        try self.init(ranges)
    }

    private static func wrong(_ why: String) -> SystemError {
        SystemError(
            cannot: "map", "users or groups", nil,
            advice: "\(why): give ranges as GUEST:HOST:COUNT that do not overlap, for example 0:100000:65536")
    }

    private static func overlap(_ a: UInt32, _ countA: UInt32, _ b: UInt32, _ countB: UInt32) -> Bool {
        a < b ? b - a < countA : a - b < countB
    }

    /// The host's number; nil when there is none.
    func host(_ guest: UInt32) -> UInt32? {
        if ranges.isEmpty { return guest }
        for range in ranges where guest &- range.guest < range.count && guest >= range.guest {
            return range.host + (guest - range.guest)
        }
        return nil
    }

    /// The driver's number.
    func guest(_ host: UInt32) -> UInt32 {
        if ranges.isEmpty { return host }
        return range(ofHost: host).map { $0.guest + (host - $0.host) } ?? Self.unknown
    }

    /// Whether the driver has a number for a user or group of the host.
    func contains(host: UInt32) -> Bool { ranges.isEmpty || range(ofHost: host) != nil }

    private func range(ofHost number: UInt32) -> Range? {
        ranges.first { number >= $0.host && number - $0.host < $0.count }
    }

    var isIdentity: Bool { ranges.isEmpty }
}
