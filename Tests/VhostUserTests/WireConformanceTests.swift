import CWire
import Testing
import VhostUser
import Virtio

/// What the specification says, written down a second time and by hand: names, numbers, sizes and offsets of
/// vhost-user. If this table and the code disagree, one of them misread the specification.
@Suite struct WireConformanceTests {
    static let requests: [(UInt32, String)] = [
        (1, "GET_FEATURES"), (2, "SET_FEATURES"), (3, "SET_OWNER"), (4, "RESET_OWNER"), (5, "SET_MEM_TABLE"),
        (6, "SET_LOG_BASE"), (7, "SET_LOG_FD"), (8, "SET_VRING_NUM"), (9, "SET_VRING_ADDR"), (10, "SET_VRING_BASE"),
        (11, "GET_VRING_BASE"), (12, "SET_VRING_KICK"), (13, "SET_VRING_CALL"), (14, "SET_VRING_ERR"),
        (15, "GET_PROTOCOL_FEATURES"), (16, "SET_PROTOCOL_FEATURES"), (17, "GET_QUEUE_NUM"), (18, "SET_VRING_ENABLE"),
        (19, "SEND_RARP"), (20, "NET_SET_MTU"), (21, "SET_BACKEND_REQ_FD"), (22, "IOTLB_MSG"),
        (23, "SET_VRING_ENDIAN"), (24, "GET_CONFIG"), (25, "SET_CONFIG"), (26, "CREATE_CRYPTO_SESSION"),
        (27, "CLOSE_CRYPTO_SESSION"), (28, "POSTCOPY_ADVISE"), (29, "POSTCOPY_LISTEN"), (30, "POSTCOPY_END"),
        (31, "GET_INFLIGHT_FD"), (32, "SET_INFLIGHT_FD"), (33, "GPU_SET_SOCKET"), (34, "RESET_DEVICE"),
        (35, "VRING_KICK"), (36, "GET_MAX_MEM_SLOTS"), (37, "ADD_MEM_REG"), (38, "REM_MEM_REG"), (39, "SET_STATUS"),
        (40, "GET_STATUS"), (41, "GET_SHARED_OBJECT"), (42, "SET_DEVICE_STATE_FD"), (43, "CHECK_DEVICE_STATE"),
        (44, "GET_SHMEM_CONFIG"), (45, "GET_VRING_BASE_SKIP_DRAIN"),
    ]

    static let protocolFeatures = [
        "MQ", "LOG_SHMFD", "RARP", "REPLY_ACK", "MTU", "BACKEND_REQ", "CROSS_ENDIAN", "CRYPTO_SESSION", "PAGEFAULT",
        "CONFIG", "BACKEND_SEND_FD", "HOST_NOTIFIER", "INFLIGHT_SHMFD", "RESET_DEVICE", "INBAND_NOTIFICATIONS",
        "CONFIGURE_MEM_SLOTS", "STATUS", "XEN_MMAP", "SHARED_OBJECT", "DEVICE_STATE", "GET_VRING_BASE_INFLIGHT",
        "GPA_ADDRESSES", "SHMEM", "GET_VRING_BASE_SKIP_DRAIN",
    ]

    @Test func `every request has the specification's name and number`() {
        for (number, name) in Self.requests { #expect(RequestKind(rawValue: number).description == name) }
        #expect(RequestKind(rawValue: 0).description == "message 0")
        #expect(RequestKind(rawValue: 46).description == "message 46")
    }

    @Test func `every protocol feature has the specification's name and bit`() {
        for (bit, name) in Self.protocolFeatures.enumerated() {
            #expect(ProtocolFeatures(rawValue: 1 << UInt64(bit)).description == "[\(name)]")
        }
    }

    @Test func `protocol features without a name are printed raw`() {
        #expect(ProtocolFeatures(rawValue: 0).description == "[]")
        #expect(ProtocolFeatures(rawValue: 1 << 40 | 1 << 24 | 0b1001).description == "[MQ, REPLY_ACK, 0x10001000000]")
    }

    @Test func `the virtio bits that belong to vhost are 26 and 30`() {
        #expect(VhostFeatures.logAll == 0x0400_0000)
        #expect(VhostFeatures.protocolFeatures == 0x4000_0000)
    }

    @Test func `structures have the specification's sizes and offsets`() {
        #expect(offsets(\wire_vhost_user_header.request, \.flags, \.size) == [0, 4, 8])
        #expect(MemoryLayout<wire_vhost_user_header>.size == 12)
        #expect(offsets(\wire_vhost_vring_state.index, \.num) == [0, 4])
        #expect(MemoryLayout<wire_vhost_vring_state>.size == 8)
        #expect(offsets(\wire_vhost_vring_addr.index, \.flags) == [0, 4])
        #expect(offsets(\wire_vhost_vring_addr.desc_user_addr, \.used_user_addr) == [8, 16])
        #expect(offsets(\wire_vhost_vring_addr.avail_user_addr, \.log_guest_addr) == [24, 32])
        #expect(MemoryLayout<wire_vhost_vring_addr>.size == 40)
        #expect(offsets(\wire_vhost_user_mem_region.guest_phys_addr, \.memory_size) == [0, 8])
        #expect(offsets(\wire_vhost_user_mem_region.userspace_addr, \.mmap_offset) == [16, 24])
        #expect(MemoryLayout<wire_vhost_user_mem_region>.size == 32)
        #expect(MemoryLayout<wire_vhost_user_mem_table_header>.size == 8)
        #expect(MemoryLayout<wire_vhost_user_single_mem_region>.size == 40)
        #expect(MemoryLayout<wire_vhost_user_single_mem_region>.offset(of: \.region) == 8)
        #expect(offsets(\wire_vhost_user_config_header.offset, \.size, \.flags) == [0, 4, 8])
        #expect(MemoryLayout<wire_vhost_user_config_header>.size == 12)
        #expect(offsets(\wire_vhost_user_inflight.mmap_size, \.mmap_offset) == [0, 8])
        #expect(offsets(\wire_vhost_user_inflight.num_queues, \.queue_size) == [16, 18])
        #expect(MemoryLayout<wire_vhost_user_inflight>.size == 24)
        #expect(offsets(\wire_vhost_user_log.mmap_size, \.mmap_offset) == [0, 8])
        #expect(MemoryLayout<wire_vhost_user_log>.size == 16)
    }

    private func offsets<Wire, Field>(_ fields: KeyPath<Wire, Field>...) -> [Int?] {
        fields.map { MemoryLayout<Wire>.offset(of: $0) }
    }

    @Test func `every message has the specification's bytes`() throws {
        for (message, bytes) in goldenMessages {
            #expect(message.encode() == bytes, "\(message.kind)")
            #expect(try decode(bytes, fdCount: message.fdCount.lowerBound) == message)
        }
        let known = Self.requests.map { RequestKind(rawValue: $0.0) }
        let covered = Set(goldenMessages.map { $0.message.kind })
        let unread = known.filter { !covered.contains($0) }
        for kind in unread {
            let message = FrontendMessage.other(kind, payload: [1, 2, 3])
            #expect(try decode(message.encode(), fdCount: message.fdCount.lowerBound) == message, "\(kind)")
        }
        #expect(unread.map(\.rawValue) == [19, 20, 22, 23, 26, 27, 28, 29, 30, 33, 35, 41, 42, 43, 44])
    }

    @Test func `every reply has the specification's bytes`() throws {
        for (kind, reply, bytes) in goldenReplies {
            #expect(reply.encode(to: kind) == bytes, "\(kind)")
            #expect(try decodeReply(bytes, fdCount: reply.fdCount, to: kind) == reply)
        }
    }
}
