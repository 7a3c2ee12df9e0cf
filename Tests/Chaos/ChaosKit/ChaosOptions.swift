/// What a chaos run does, and to what.
public struct ChaosOptions: Sendable {
    /// What the workers serve.
    public enum Device: String, Sendable {
        case disk
        case share
    }

    public var device = Device.disk
    /// SIGKILLs of the worker that has the device, at random moments.
    public var kills = 20
    /// More of them, so many at each of the moments in `AimedPhase`.
    public var aimed = 0
    /// SIGTRAPs of it: to the supervisor, the worker's own fault.
    public var traps = 0
    /// Upgrades, to and fro between two copies of the worker.
    public var upgrades = 0
    /// Of the load, and of the order and the moments of all this.
    public var seed: UInt64
    public var isPacked = false
    public var queueCount = 1
    /// Loop threads of the worker.
    public var threadCount = 1
    /// Past the host's page cache.
    public var isDirect = false
    /// The disk is a loop device that takes few writes a second: the last queue always has a FLUSH under way that waits
    /// for them. Gaps and pauses are those of the other queues, which read.
    public var isThrottled = false
    /// How long each request of the disk takes, in milliseconds; 0: as long as the host's page cache takes.
    public var latencyMilliseconds = 0
    /// The load has the last CPU for itself, supervisor and workers the others, as hosts do whose guests have CPUs of
    /// their own.
    public var separatesCPUs = false
    /// GiB of guest memory, all of it touched; 0: as much as the load needs.
    public var memoryGiB = 0
    /// The driver sleeps until it is interrupted, instead of polling: an interrupt that a successor owes must come.
    public var usesInterrupts = false
    /// Of 8 kills, so many do not wait until a standby is ready.
    public var coldKillsOfEight: UInt64 = 1
    /// Seconds of the same load without kills, before and after: what throughput is compared with. 0: none.
    public var controlSeconds = 0

    /// Files besides that the driver of a share knows all the time.
    public var knownNodes = 0

    public init(seed: UInt64) {
        self.seed = seed
    }
}
