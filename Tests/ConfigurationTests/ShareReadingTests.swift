import Configuration
import ControlAPI
import FileTarget
import SupervisorRuntime
import Testing

/// What `[share.NAME]` means, and what is said of one that is wrong.
@Suite struct ShareReadingTests {
    /// Reads one file, `a.toml`.
    private func read(_ text: String) -> ConfigurationContent {
        ConfigurationContent([ConfigurationText(path: "a.toml", text: text)])
    }

    /// All that is wrong with a file, one a line.
    private func problems(_ text: String) -> [String] { read(text).problems.map(\.description) }

    @Test func `a share has what its section says, then its kind's defaults, then those of all devices`() throws {
        let configuration = read(
            """
            [defaults]
            queues = 4
            cache = "buffered"
            xattr = true
            socket-mode = "660"

            [defaults.disk]
            queues = 2

            [defaults.share]
            cache = "always"
            queues = 3
            flock = true

            [share.home]
            directory = "/srv/home"
            tag = "my home"
            socket = "/run/home.sock"
            read-only = true
            cache = "metadata"
            writeback = true
            xattr = false
            xattrmap = ":map::user.virtiofs.:"
            posix-acl = true
            security-label = true
            flock = false
            posix-lock = true
            allow-direct-io = true
            no-announce-submounts = true
            no-readdirplus = true
            translate-uid = "0:100000:65536"
            translate-gid = ["0:1000:1", "1:2000:10"]
            inode-file-handles = "mandatory"
            max-nodes = 1000
            max-files = 100
            queues = 8
            queue-size = 128
            threads = 2
            split-rings = true
            poll-us = 0
            cpus = [0, 2]
            pin-memory = true
            socket-owner = "root"
            socket-group = 0
            cpu-weight = 200
            memory-max = "64M"
            io-weight = 50

            [share.plain]
            directory = "/srv/plain"

            [disk.d]
            null = true
            """)
        #expect(configuration.problems.isEmpty, "\(configuration.problems)")
        var home = DeviceParameters(
            name: "home", file: nil, socket: "/run/home.sock", queues: 8, queueSize: 128, threads: 2, readOnly: true)
        var share = ShareParameters(directory: "/srv/home", tag: "my home")
        (share.cache, share.xattrmap, share.inodeFileHandles) = ("metadata", ":map::user.virtiofs.:", "mandatory")
        (share.writeback, share.posixACL, share.securityLabel, share.posixLock) = (true, true, true, true)
        (share.allowDirectIO, share.noAnnounceSubmounts, share.noReaddirplus) = (true, true, true)
        (share.translateUID, share.translateGID) = ("0:100000:65536", "0:1000:1,1:2000:10")
        (share.maxNodes, share.maxFiles) = (1000, 100)
        home.share = share
        (home.splitRings, home.pinMemory, home.pollMicroseconds, home.cpus) = (true, true, 0, [0, 2])
        (home.socketMode, home.socketOwner, home.socketGroup) = ("0660", "root", "0")
        (home.cpuWeight, home.memoryMax, home.ioWeight) = (200, 64 << 20, 50)
        // libvirt asks for 1024.
        var plain = DeviceParameters(name: "plain", file: nil, queues: 3, queueSize: 1024)
        var other = ShareParameters(directory: "/srv/plain", tag: "plain")
        (other.cache, other.flock, other.xattr) = ("always", true, true)
        plain.share = other
        plain.socketMode = "0660"
        var disk = DeviceParameters(name: "d", file: nil, queues: 2, cache: "buffered")
        disk.socketMode = "0660"
        #expect(configuration.devices.map(\.parameters) == [disk, home, plain])
    }

    @Test(arguments: [
        ("qeues = 2", "qeues: there is no such key (did you mean `queues`?)"),
        ("xatr = true", "xatr: there is no such key (did you mean `xattr`?)"),
        ("posixAcl = true", "posixAcl: there is no such key (did you mean `posix-acl`?)"),
        ("colour = 2", "colour: there is no such key (baton help create share has them all)"),
        ("file = \"/x\"", "file: there is no such key (that is a key of [disk.NAME])"),
        ("on-enospc = \"hold\"", "on-enospc: there is no such key (that is a key of [disk.NAME])"),
        (
            "sub.xattr = true",
            "sub: there is no such key (a share's name with dots needs quotes: [share.\"s.sub\"])"
        ),
        ("queues = 64", "queues: 64 is not possible (allowed: 1 to 63)"),
        ("threads = 15", "threads: 15 is not possible (allowed: 1 to 14)"),
        ("threads = 2", "threads: 2 threads are more than the 1 queues (allowed: 1 to 1 threads, or raise queues)"),
        ("xattr = 1", "xattr: this takes true or false, not the integer 1 (allowed: true, false)"),
        ("max-files = 15", "max-files: 15 is not possible (allowed: 16 to 1048576)"),
        ("max-nodes = 3", "max-nodes: 3 is not possible (allowed: 4 to 16777216)"),
        (
            "cache = \"none\"",
            "cache: \"none\" is not possible (allowed: \"never\", \"metadata\", \"auto\", \"always\")"
        ),
        ("cache = \"alwais\"", "cache: \"alwais\" is not possible (did you mean \"always\"?)"),
        ("tag = \"\"", "tag: the tag is empty (allowed: 1 to 36 bytes)"),
        ("tag = \"0123456789012345678901234567890123456\"", "tag: the tag has 37 bytes (allowed: 1 to 36 bytes)"),
        ("tag = \"ää012345678901234567890123456789012\"", "tag: the tag has 37 bytes (allowed: 1 to 36 bytes)"),
        ("tag = 5", "tag: this takes a string, not the integer 5 (allowed: 1 to 36 bytes)"),
        (
            "translate-uid = 5",
            "translate-uid: this takes ranges of numbers, not the integer 5 "
                + "(write GUEST:HOST:COUNT, such as \"0:100000:65536\"; at most 340 of them)"
        ),
        (
            "translate-uid = \"0:1000:10,5:2000:1\"",
            "translate-uid: the range 5:2000:1 overlaps 0:1000:10 (each number is one user of either side)"
        ),
        (
            "xattrmap = \":map:::\"",
            "xattrmap: a map rule needs something to prepend "
                + "(write :TYPE:SCOPE:KEY:PREPEND: or :map:KEY:PREPEND:, such as \":map::user.virtiofs.:\")"
        ),
    ])
    func `what is wrong with a key is said with its path, a reason and what to do`(line: String, said: String) {
        #expect(problems("[share.s]\ndirectory = \"/s\"\n\(line)\n") == ["a.toml: error: share.s.\(said)"])
    }

    @Test(arguments: [
        ("[share.s]\n", "share.s: it does not say what to share (add directory = \"/path/of/a/directory\")"),
        (
            "[share.s]\ndirectory = \"s\"\n",
            "share.s.directory: \"s\" is not an absolute path (begin it with /: batond has no folder of its own)"
        ),
        ("share = 4\n", "share: this is a section, not the integer 4 (write [share.NAME])"),
        (
            "[share]\nxattr = true\n",
            "share.xattr: a share is a section of its own (write [share.NAME], and xattr below it)"
        ),
        (
            "[share.\"a b\"]\ndirectory = \"/s\"\n",
            "share.a b: this is no name for a share "
                + "(use 1 to 64 letters, digits, dashes, underscores and dots, the first one no dot)"
        ),
        (
            "[share.d]\ndirectory = \"/s\"\n[disk.d]\nnull = true\n",
            "share.d: a.toml has a disk of this name already (rename or remove one of them)"
        ),
        (
            "[defaults]\ndirectory = \"/x\"\n",
            "defaults.directory: this is each share's own (write it below [share.NAME])"
        ),
        ("[defaults]\ntag = \"x\"\n", "defaults.tag: this is each share's own (write it below [share.NAME])"),
        ("[defaults]\nflok = true\n", "defaults.flok: there is no such key (did you mean `flock`?)"),
        (
            "[defaults]\ncolours = true\n",
            "defaults.colours: there is no such key "
                + "(baton help create disk and baton help create share have them all)"
        ),
        ("[defaults]\nshare = 1\n", "defaults.share: this is a section, not the integer 1 (write [defaults.share])"),
        (
            "[defaults.share]\nfile = \"/x\"\n",
            "defaults.share.file: there is no such key (that is a key of [disk.NAME])"
        ),
        (
            "[defaults.share]\ncache = \"direct\"\n",
            "defaults.share.cache: \"direct\" is not possible "
                + "(allowed: \"never\", \"metadata\", \"auto\", \"always\")"
        ),
        (
            "[defaults.disk]\nxattr = true\n",
            "defaults.disk.xattr: there is no such key (that is a key of [share.NAME])"
        ),
        (
            "[defaults]\nqueues = 64\n[share.s]\ndirectory = \"/s\"\n",
            "defaults.queues: share.s cannot have this: 64 is not possible "
                + "(allowed: 1 to 63; [defaults.share] is for shares alone)"
        ),
        (
            "[disk.d]\nnull = true\nsocket = \"/s\"\n[share.s]\ndirectory = \"/s\"\nsocket = \"/s\"\n",
            "share.s.socket: disk.d has the same socket /s (give each its own)"
        ),
    ])
    func `sections are those that there are, and devices do not clash`(text: String, said: String) {
        #expect(problems(text) == ["a.toml: error: \(said)"])
    }

    @Test func `a default that shares cannot have is no matter where each says otherwise`() {
        let disks = "[defaults]\nqueues = 64\n[disk.d]\nnull = true\n"
        #expect(problems(disks).isEmpty)
        #expect(problems(disks + "[share.s]\ndirectory = \"/s\"\nqueues = 2").isEmpty)
        #expect(problems(disks + "[defaults.share]\nqueues = 2\n[share.s]\ndirectory = \"/s\"").isEmpty)
    }

    @Test func `defaults that are said twice are named with both files`() {
        let text = "[defaults]\nxattr = true\n[defaults.share]\nflock = true"
        let files = ["a", "b"].map { ConfigurationText(path: $0, text: text) }
        #expect(
            ConfigurationContent(files).problems.map(\.description) == [
                "b: error: defaults.share.flock: a says this already (keep one of them)",
                "b: error: defaults.xattr: a says this already (keep one of them)",
            ])
    }

    @Test func `two shares may have a directory in common, and a tag in common is worth a word`() {
        func text(_ name: String) -> String { "[share.\(name)]\ndirectory = \"/s\"\ntag = \"home\"\n" }
        let configuration = read(text("one") + text("two"))
        #expect(!configuration.hasErrors)
        #expect(
            configuration.problems.map(\.description) == [
                "a.toml: warning: share.two.tag: share.one has the same tag home: one guest can mount only one of them "
                    + "(give each its own, unless they are for different guests)"
            ])
    }

    @Test func `ranges are those of the supervisor`() {
        func isValid(queues: Int = 63, threads: Int = 1, files: Int = 16, tag: String = "t") -> Bool {
            var configuration = DeviceConfiguration(name: "s", socketPath: "/s", imagePath: nil)
            (configuration.queueCount, configuration.threadCount) = (queues, threads)
            var share = ShareSettings(directory: "/s", tag: tag)
            share.maximumFiles = files
            configuration.share = share
            return (try? configuration.validate()) != nil
        }
        func isRead(_ line: String) -> Bool {
            let queues = line.hasPrefix("queues") ? "" : "queues = 63\n"
            return !read("[share.s]\ndirectory = \"/s\"\n\(queues)\(line)\n").hasErrors
        }
        for value in [0, 1, 63, 64] { #expect(isRead("queues = \(value)") == isValid(queues: value)) }
        for value in [0, 1, 14, 15] { #expect(isRead("threads = \(value)") == isValid(threads: value)) }
        for value in [15, 16, 1 << 20, 1 << 20 + 1] {
            #expect(isRead("max-files = \(value)") == isValid(files: value))
        }
        for count in [0, 1, 36, 37] {
            let tag = String(repeating: "t", count: count)
            #expect(isRead("tag = \"\(tag)\"") == isValid(tag: tag))
        }
    }

    @Test func `identifiers and attribute rules are those of the worker`() {
        func isRead(_ line: String) -> Bool { !read("[share.s]\ndirectory = \"/s\"\n\(line)\n").hasErrors }
        let many = (0..<341).map { "\($0):\($0):1" }
        for text in [
            "0:0:1", "0:100000:65536", ":0:1:1:", "0:1", "a:1:1", "0:1:0", "4294967294:0:1", "4294967295:0:1",
            "0:4294967290:6", "0:10:5,4:20:1", "0:10:5,5:14:1", "0:10:5,5:15:1", "0:1:-1",
            many.joined(separator: ","),
        ] {
            #expect(isRead("translate-uid = \"\(text)\"") == ((try? IDMap(parsing: text)) != nil), "\(text)")
        }
        let rule = ":ok:all:::"
        for text in [
            "", " ", rule, ":map::user.:", ":map:trusted.:user.:", ":map:::", ":map::user.:\(rule)", "\(rule):map::u.:",
            "/prefix/client/a/b/ !ok!server!!!", ":prefix:guest:a:b:", ":good:all:::", ":ok:all::", "x",
            ":map::\(String(repeating: "u", count: 256)):", String(repeating: rule, count: 124),
            String(repeating: rule, count: 129),
        ] {
            #expect(isRead("xattrmap = \"\(text)\"") == ((try? AttributeRules(parsing: text)) != nil), "\(text)")
        }
        // In a file they may stand on lines of their own.
        let lines = read("[share.s]\ndirectory = \"/s\"\nxattrmap = \"\"\"\n\(rule)\n:map::user.:\n\"\"\"\n")
        #expect(lines.devices.first?.parameters.share?.xattrmap == "\(rule) :map::user.: ")
    }
}
