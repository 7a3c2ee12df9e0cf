import Configuration
import ControlAPI
import Testing

/// What files mean, and what is said of those that are wrong.
@Suite struct ReadingTests {
    /// Reads one file, `a.toml`.
    private func read(_ text: String) -> ConfigurationContent {
        ConfigurationContent([ConfigurationText(path: "a.toml", text: text)])
    }

    /// All that is wrong with a file, one a line.
    private func problems(_ text: String) -> [String] { read(text).problems.map(\.description) }

    @Test func `nothing asks for nothing`() {
        #expect(ConfigurationContent([]).devices.isEmpty)
        #expect(problems("# a comment\n[defaults]\n").isEmpty)
    }

    @Test func `a disk has what its section says, then what the defaults say`() throws {
        let configuration = read(
            """
            [defaults]
            queues = 4
            cache = "buffered"
            socket-mode = "660"

            [disk.db]
            file = "/srv/db.img"
            queues = 8
            threads = 2
            queue-size = 128
            read-only = true
            serial = "DB 1"
            socket = "/run/db.sock"
            block-size = 4096
            split-rings = true
            pin-memory = true
            poll-us = 0
            cpus = [0, 2]
            socket-owner = "root"
            socket-group = 0
            cpu-weight = 200
            memory-max = "64M"
            io-weight = 50
            limit = { iops = 2000, bandwidth = "100M", bandwidth-burst = 1048576 }
            on-enospc = "hold"

            [disk.scratch]
            null = true
            cpus = "1,3"
            """)
        #expect(configuration.problems.isEmpty, "\(configuration.problems)")
        var db = DeviceParameters(
            name: "db", file: "/srv/db.img", socket: "/run/db.sock", queues: 8, queueSize: 128, threads: 2,
            readOnly: true, cache: "buffered", serial: "DB 1", blockSize: 4096)
        (db.splitRings, db.pinMemory, db.pollMicroseconds, db.cpus) = (true, true, 0, [0, 2])
        (db.socketMode, db.socketOwner, db.socketGroup) = ("0660", "root", "0")
        (db.cpuWeight, db.memoryMax, db.ioWeight) = (200, 64 << 20, 50)
        db.limit = LimitInfo(iops: 2000, bandwidth: 100 << 20, bandwidthBurst: 1 << 20)
        db.onEnospc = "hold"
        var scratch = DeviceParameters(name: "scratch", file: nil, queues: 4, cache: "buffered")
        scratch.socketMode = "0660"
        scratch.cpus = [1, 3]
        #expect(configuration.devices.map(\.parameters) == [db, scratch])
        #expect(configuration.devices.map(\.file) == ["a.toml", "a.toml"])
    }

    @Test func `defaults hold over files, whatever their order`() {
        let configuration = ConfigurationContent([
            ConfigurationText(path: "a", text: "[disk.d]\nnull = true"),
            ConfigurationText(path: "b", text: "[defaults]\nqueues = 3"),
        ])
        #expect(configuration.problems.isEmpty)
        #expect(configuration.devices.first?.parameters.queues == 3)
        #expect(configuration.devices.first?.file == "a")
    }

    @Test(arguments: [
        ("[disk.d\n", 1), ("[disk.d]\nnull = true\nqueues = 08\n", 3), ("[disk.d]\nnull =\n", 2),
        ("[disk.d]\nnull = true\nnull = true\n", 3), ("x = \"open\n", 1), ("[disk.d]\n[disk.d]\n", 2),
    ])
    func `a syntax error has its file and line`(text: String, line: Int) throws {
        let problem = try #require(read(text).problems.first)
        #expect(problem.severity == .error)
        #expect(problem.line == line, "\(problem)")
        #expect(problem.column != nil)
        #expect(problem.description.hasPrefix("a.toml:\(line):"))
    }

    @Test func `a file with NUL bytes is no text`() {
        #expect(problems("[disk.d]\nnull = true\0") == ["a.toml: error: the file has NUL bytes: it is no text"])
    }

    @Test(arguments: [
        // Keys
        ("queue-sise = 2", "disk.d.queue-sise: there is no such key (did you mean `queue-size`?)"),
        ("queue_size = 2", "disk.d.queue_size: there is no such key (did you mean `queue-size`?)"),
        ("queueSize = 2", "disk.d.queueSize: there is no such key (did you mean `queue-size`?)"),
        ("qeues = 2", "disk.d.qeues: there is no such key (did you mean `queues`?)"),
        ("colour = 2", "disk.d.colour: there is no such key (baton help create disk has them all)"),
        (
            "sub.null = true",
            "disk.d.sub: there is no such key (a disk's name with dots needs quotes: [disk.\"d.sub\"])"
        ),
        ("xattr = true", "disk.d.xattr: there is no such key (that is a key of [share.NAME])"),
        // Kinds
        ("queues = \"4\"", "disk.d.queues: this takes an integer, not a string (write 4 without quotes)"),
        ("queues = \"many\"", "disk.d.queues: this takes an integer, not the string \"many\" (allowed: 1 to 64)"),
        ("queues = 1.5", "disk.d.queues: this takes an integer, not a number with a fraction (allowed: 1 to 64)"),
        ("queues = true", "disk.d.queues: this takes an integer, not true (allowed: 1 to 64)"),
        ("read-only = 1", "disk.d.read-only: this takes true or false, not the integer 1 (allowed: true, false)"),
        ("cache = 1", "disk.d.cache: this takes a string, not the integer 1 (allowed: \"direct\", \"buffered\")"),
        (
            "block-size = \"512\"",
            "disk.d.block-size: this takes an integer, not the string \"512\" (allowed: 512, 4096)"
        ),
        (
            "serial = 1979-05-27",
            "disk.d.serial: this takes a string, not a date or time "
                + "(allowed: at most 20 printable ASCII characters)"
        ),
        // Ranges
        ("queues = 0", "disk.d.queues: 0 is not possible (allowed: 1 to 64)"),
        ("queues = 65", "disk.d.queues: 65 is not possible (allowed: 1 to 64)"),
        ("queue-size = 2000", "disk.d.queue-size: 2000 is not possible (allowed: 2 to 1024)"),
        ("poll-us = -1", "disk.d.poll-us: -1 is not possible (allowed: 0 to 1000000)"),
        ("block-size = 1024", "disk.d.block-size: 1024 is not possible (allowed: 512, 4096)"),
        ("cache = \"dirct\"", "disk.d.cache: \"dirct\" is not possible (did you mean \"direct\"?)"),
        ("cache = \"none\"", "disk.d.cache: \"none\" is not possible (allowed: \"direct\", \"buffered\")"),
        ("cpu-weight = 10001", "disk.d.cpu-weight: 10001 is not possible (allowed: 1 to 10000)"),
        (
            "memory-max = \"1M\"",
            "disk.d.memory-max: the string \"1M\" is no possible size (allowed: \"16M\" to \"1024T\", or bytes)"
        ),
        (
            "memory-max = \"9999999999G\"",
            "disk.d.memory-max: the string \"9999999999G\" is no possible size "
                + "(allowed: \"16M\" to \"1024T\", or bytes)"
        ),
        (
            "cpus = [0, 4096]",
            "disk.d.cpus: 4096 is not possible (allowed: a list of at most 64 numbers from 0 to 4095)"
        ),
        (
            "cpus = [\"0\"]",
            "disk.d.cpus: this takes a list of integers, not the string \"0\" "
                + "(allowed: a list of at most 64 numbers from 0 to 4095)"
        ),
        (
            "serial = \"123456789012345678901\"",
            "disk.d.serial: \"123456789012345678901\" is no serial number "
                + "(use at most 20 printable ASCII characters; this has 21 bytes)"
        ),
        (
            "socket = \"d.sock\"",
            "disk.d.socket: \"d.sock\" is not an absolute path "
                + "(begin it with /: batond has no folder of its own)"
        ),
        (
            "socket-mode = \"0888\"",
            "disk.d.socket-mode: \"0888\" is no mode (allowed: \"0000\" to \"0777\", such as \"0660\")"
        ),
        (
            "socket-mode = 432",
            "disk.d.socket-mode: this takes a string of octal digits, not the integer 432 "
                + "(write it as \"0660\")"
        ),
        (
            "threads = 2",
            "disk.d.threads: 2 threads are more than the 1 queues (allowed: 1 to 1 threads, or raise queues)"
        ),
        (
            "limit = 2000",
            "disk.d.limit: this takes a table, not the integer 2000 (write it as { iops = 2000, bandwidth = \"100M\" })"
        ),
        ("limit = { iops = 0 }", "disk.d.limit.iops: 0 is not possible (allowed: 1 to 10000000)"),
        ("limit = { ipos = 10 }", "disk.d.limit.ipos: there is no such limit (did you mean `iops`?)"),
        (
            "limit = { speed = 10 }",
            "disk.d.limit.speed: there is no such limit (there are iops, iops-burst, bandwidth, bandwidth-burst)"
        ),
        (
            "limit = { bandwidth = \"1K\" }",
            "disk.d.limit.bandwidth: the string \"1K\" is no possible size (allowed: \"4K\" to \"1T\", or bytes)"
        ),
        (
            "limit = { iops-burst = 10 }",
            "disk.d.limit.iops-burst: there is no limit that could be exceeded for a while "
                + "(add iops, or leave iops-burst out)"
        ),
        ("on-enospc = \"holt\"", "disk.d.on-enospc: \"holt\" is not possible (did you mean \"hold\"?)"),
        ("file = \"/x\"", "disk.d.null: a disk that keeps nothing has no file (remove one of them)"),
    ])
    func `what is wrong with a key is said with its path, a reason and what to do`(line: String, said: String) {
        #expect(problems("[disk.d]\nnull = true\n\(line)\n") == ["a.toml: error: \(said)"])
    }

    @Test func `a socket's path has room`() {
        let path = "/" + String(repeating: "x", count: 106)
        #expect(
            problems("[disk.d]\nnull = true\nsocket = \"\(path)\"") == [
                "a.toml: error: disk.d.socket: the path has 107 bytes (allowed: at most 106 bytes)"
            ])
    }

    @Test(arguments: [
        ("[disk.d]\n", "disk.d: it does not say what to serve (add file = \"/path/of/an/image\")"),
        ("[disks.d]\nnull = true\n", "disks: there is no such section (did you mean `disk`?)"),
        ("[shares.d]\n", "shares: there is no such section (did you mean `share`?)"),
        ("[host.d]\n", "host: there is no such section (there are [defaults], [disk.NAME] and [share.NAME])"),
        (
            "queues = 4\n",
            "queues: there is no such section (it belongs below [defaults], [disk.NAME] or [share.NAME])"
        ),
        ("serial = 4\n", "serial: there is no such section (it belongs below [defaults] or [disk.NAME])"),
        ("xattr = 4\n", "xattr: there is no such section (it belongs below [defaults] or [share.NAME])"),
        ("disk = 4\n", "disk: this is a section, not the integer 4 (write [disk.NAME])"),
        (
            "[disk]\nqueues = 4\n",
            "disk.queues: a disk is a section of its own (write [disk.NAME], and queues below it)"
        ),
        (
            "[disk.\"a b\"]\nnull = true\n",
            "disk.a b: this is no name for a disk "
                + "(use 1 to 64 letters, digits, dashes, underscores and dots, the first one no dot)"
        ),
        ("[defaults]\nfile = \"/x\"\n", "defaults.file: this is each disk's own (write it below [disk.NAME])"),
        ("[defaults]\nthread = 1\n", "defaults.thread: there is no such key (did you mean `threads`?)"),
    ])
    func `sections are those that there are`(text: String, said: String) {
        #expect(problems(text) == ["a.toml: error: \(said)"])
    }

    @Test func `a name with dots stands in quotes`() {
        #expect(read("[disk.\"vm.1\"]\nnull = true").devices.map(\.parameters.name) == ["vm.1"])
    }

    @Test func `one run finds everything, in all files`() {
        let configuration = ConfigurationContent([
            ConfigurationText(path: "a", text: "[disk.d]\nqueues = 0\nthreads = 0\ncolour = 1"),
            ConfigurationText(path: "b", text: "[disk"),
            ConfigurationText(path: "c", text: "[defaults]\npoll-us = \"x\""),
        ])
        #expect(configuration.problems.map(\.file) == ["b", "c", "a", "a", "a", "a"])
        #expect(configuration.hasErrors)
    }

    @Test func `what is said twice is named with both files`() {
        let files = [
            ConfigurationText(path: "a", text: "[defaults]\nqueues = 2\n[disk.d]\nnull = true"),
            ConfigurationText(path: "b", text: "[defaults]\nqueues = 3\n[disk.d]\nnull = true"),
        ]
        #expect(
            ConfigurationContent(files).problems.map(\.description) == [
                "b: error: defaults.queues: a says this already (keep one of them)",
                "b: error: disk.d: a has a disk of this name already (rename or remove one of them)",
            ])
    }

    @Test func `two disks share neither a socket nor an image that one of them writes`() {
        func text(_ name: String, _ readOnly: Bool) -> String {
            "[disk.\(name)]\nfile = \"/i\"\nsocket = \"/s\"\nread-only = \(readOnly)\n"
        }
        let files = [
            ConfigurationText(path: "a", text: text("one", true)),
            ConfigurationText(path: "b", text: text("two", false)),
        ]
        #expect(
            ConfigurationContent(files).problems.map(\.description) == [
                "b: error: disk.two.socket: disk.one in a has the same socket /s (give each its own)",
                "b: error: disk.two.file: disk.one in a has the same image /i, and one of them writes "
                    + "(give each its own)",
            ])
        let readers = read("[disk.a]\nfile = \"/i\"\nread-only = true\n[disk.b]\nfile = \"/i\"\nread-only = true\n")
        #expect(readers.problems.isEmpty)
    }

    @Test func `a limit may be a section, and of the defaults`() throws {
        let configuration = read("[defaults.limit]\niops = 5\n[disk.a]\nnull = true\n[disk.b]\nnull = true\nlimit = {}")
        #expect(configuration.problems.isEmpty)
        #expect(configuration.devices.map(\.parameters.limit) == [LimitInfo(iops: 5), nil])
        #expect(
            read("[defaults.limit]\niop = 5\n").problems.map(\.description) == [
                "a.toml: error: defaults.limit.iop: there is no such limit (did you mean `iops`?)"
            ])
    }

    @Test func `a flood of problems is cut`() {
        let lines = (0..<300).map { "key-\($0) = 1\n" }.joined()
        let found = problems("[disk.d]\nnull = true\n\(lines)")
        #expect(found.count == ConfigurationContent.maximumProblems + 1)
        #expect(found.last == "a.toml: error: and 100 more")
    }
}
