import CKernelHeaders
import Testing
import Virtio

/// What CWire says about virtio, and about FUSE, compared with the kernel's headers.
@Suite("The kernel's headers")
struct KernelHeaderTests {
    @Test("numbers, sizes and offsets are the kernel's")
    func numbers() {
        var index = 0
        while case let comparison = unsafe kernel_comparison_at(index), let name = unsafe comparison.name {
            let (ours, kernels) = unsafe (comparison.ours, comparison.kernels)
            #expect(ours == kernels, "\(unsafe String(cString: name))")
            index += 1
        }
        #expect(index > 60)
    }

    @Test("FUSE's numbers, sizes and offsets are the kernel's")
    func fuse() {
        var index = 0
        while case let comparison = unsafe fuse_comparison_at(index), let name = unsafe comparison.name {
            let (ours, kernels) = unsafe (comparison.ours, comparison.kernels)
            #expect(ours == kernels, "\(unsafe String(cString: name))")
            index += 1
        }
        #expect(index > 300)
    }

    @Test("rings are as long as the kernel's", arguments: [1, 2, 100, 256, 1024, 32768])
    func ringSizes(size: Int) {
        // The kernel always counts the event fields.
        let eventIndex: UInt64 = 1 << 29
        #expect(
            SplitVirtqueue.availableRingBytes(size: size, features: eventIndex)
                == kernel_available_ring_bytes(UInt32(size)))
        #expect(SplitVirtqueue.usedRingBytes(size: size, features: eventIndex) == kernel_used_ring_bytes(UInt32(size)))
        #expect(SplitVirtqueue.descriptorTableBytes(size: size) == 16 * size)
    }
}
