internal import ArgumentParser

@main
struct Baton: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "baton", abstract: "Disks and shared directories of virtual machines that outlive their servers.",
        version: "0.1.0",
        subcommands: [
            Check.self, Create.self, Mount.self, Unmount.self, Reload.self, Resize.self, Limit.self, SetDevice.self,
            Resume.self, Start.self,
            Stop.self, Delete.self, ListDevices.self, Status.self, Top.self, Upgrade.self, Kill.self, Events.self,
        ])
}
