internal import FileTarget
internal import Logging
internal import Platform
internal import VhostUser

/// What a share has besides what every device has: its tables, which are its driver's.
class ShareDevice: ServedDevice {
    private let session: ShareSession
    private let openFiles: FileRing?

    /// - Parameter openFiles: where open files outlive this worker; nil: nowhere.
    init(_ session: ShareSession, openFiles: FileRing?, _ parts: Parts) {
        self.session = session
        self.openFiles = openFiles
        super.init(parts)
    }

    override var offeredFeatures: UInt64 { session.description.features }
    override var offersConfiguration: Bool { false }
    // What a driver knows of nodes and open files would not come along.
    override var offersDirtyLog: Bool { false }
    override var configuration: [UInt8] { session.description.configuration }

    override func takeUpStorage() throws(SystemError) {
        openFiles?.takeUp()
        session.takeUp()
        try openFiles?.restore(session)
        session.learnMounts()
    }

    /// A driver that is gone knows no nodes and has no files open. One whose device is another worker's is not gone.
    override func forgetDriver() {
        guard !isStandingBy else { return }
        session.reset()
    }

    override var metadata: Logger.Metadata {
        [
            "tag": "\(session.description.tag)", "queues": "\(queueCount)", "threads": "\(loops.count)",
            "read-only": "\(session.description.isReadOnly)", "cache": "\(session.description.cache.rawValue)",
        ]
    }
}
