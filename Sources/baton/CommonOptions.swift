internal import ArgumentParser
internal import ControlAPI

/// What disks and shares have in common: how the device is served, and who may connect.
struct CommonOptions: ParsableArguments {
    @Flag(help: "Offer split rings only; packed ones are for front-ends that ask for them.")
    var splitRings = false

    @Option(help: "Poll at most so long before sleeping, in microseconds, 0 to 1000000 (50).")
    var pollUs: Int?

    @Option(help: "CPUs to bind the threads to, in turn, such as 0,2,4.")
    var cpus: String?

    @Flag(help: "Keep all guest memory present while it is mapped.")
    var pinMemory = false

    @Option(help: "Permissions of the socket, octal (as batond's umask makes them).")
    var socketMode: String?

    @Option(help: "Owner of the socket, a name or a number.")
    var socketOwner: String?

    @Option(help: "Group of the socket, a name or a number.")
    var socketGroup: String?

    func validate() throws {
        if let cpus, cpuNumbers(cpus) == nil {
            throw ValidationError("--cpus is a list such as 0,2,4, not '\(cpus)'")
        }
    }

    func apply(to device: inout DeviceParameters) {
        device.splitRings = splitRings ? true : nil
        device.pollMicroseconds = pollUs
        device.cpus = cpus.flatMap(cpuNumbers)
        device.pinMemory = pinMemory ? true : nil
        (device.socketMode, device.socketOwner, device.socketGroup) = (socketMode, socketOwner, socketGroup)
    }
}
