//! Promise 8: code from others is confined. Each script says `breach` when it gets through.

use std::fs;

use avocet_runtimes::{Exit, Level, Options, Runtimes, confinement_available};

use crate::{Invocation, SHIM};

#[tokio::test]
async fn promise_8_only_its_own_files_can_be_read_or_written() {
    let function = Invocation::shell(
        "echo mine >$TMP_OUTPUT_DIR/mine && echo mine >mine && cat $INPUT_FILE_PATH $0 >/dev/null || echo broken\n\
         try() { (\"$@\") 2>/dev/null && echo \"breach: $*\"; }\n\
         try cat $SECRET\n\
         try cat /etc/shadow\n\
         try cat /proc/$AGENT/environ\n\
         try ls /proc\n\
         try ls $(dirname $SECRET)\n\
         try ls /root\n\
         try sh -c 'echo x >$SECRET'\n\
         try sh -c 'echo x >$0.new' $0\n\
         try sh -c 'echo x >$INPUT_FILE_PATH'\n\
         try sh -c 'echo x >/tmp/avocet-breach'\n\
         try sh -c 'echo x >/dev/shm/avocet-breach'\n\
         try rm -f $SECRET\n\
         try ln $SECRET stolen\n\
         try mv $SECRET stolen\n\
         ln -s $SECRET link; try cat link\n\
         try mknod sda b 8 0\n\
         true\n",
    );
    fs::write(function.path("secret"), "a secret").unwrap();
    let function = function.environment("AGENT", std::process::id()).with(|run| {
        let secret = run.log.with_file_name("secret");
        run.environment.insert("SECRET".into(), secret.to_str().unwrap().into());
    });
    let outcome = function.run().await;
    assert!(outcome.succeeded(), "{outcome:?} {}", function.log());
    assert_eq!(function.log(), "");
    assert_eq!(outcome.level, confinement_available());
}

#[tokio::test]
async fn promise_8_other_processes_are_out_of_reach() {
    if confinement_available() < Level::Full {
        return;
    }
    let function = Invocation::shell(
        "for process in $AGENT $PPID -1 1; do\n\
           kill -0 $process 2>/dev/null && echo breach: $process\n\
         done\n\
         sleep 100 & kill $! || echo broken\n\
         true\n",
    )
    .environment("AGENT", std::process::id());
    assert!(function.run().await.succeeded());
    assert_eq!(function.log(), "");
}

#[tokio::test]
async fn promise_8_it_has_no_privileges_even_if_the_agent_is_root() {
    let function = Invocation::python(
        "import ctypes, os, resource, socket\n\
         libc = ctypes.CDLL(None, use_errno=True)\n\
         def attempt(name, action):\n\
         \x20   try: action()\n\
         \x20   except (OSError, ValueError): return\n\
         \x20   print('breach:', name)\n\
         def call(function, *arguments):\n\
         \x20   def action():\n\
         \x20       if function(*arguments) < 0: raise OSError(ctypes.get_errno())\n\
         \x20   return action\n\
         attempt('user', lambda: os.setuid(os.getuid() + 1))\n\
         attempt('host name', lambda: socket.sethostname('x'))\n\
         attempt('namespace', call(libc.unshare, 0x10000000))\n\
         attempt('trace', call(libc.ptrace, 16, os.getppid(), 0, 0))\n\
         attempt('keys', call(libc.syscall, 250 if os.uname().machine == 'x86_64' else 219, 0, -4, 1))\n\
         attempt('limit', lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096)))\n\
         assert libc.prctl(39, 0, 0, 0, 0) == 1, 'new privileges'\n\
         for capability in range(41 if os.getuid() == 0 else 0): assert libc.prctl(23, capability, 0, 0, 0) == 0, capability\n\
         assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)\n\
         assert resource.getrlimit(resource.RLIMIT_NOFILE) == (256, 256)\n\
         assert os.getsid(0) != os.getpid() == os.getpgid(0)\n",
    );
    let outcome = function.run().await;
    assert!(outcome.succeeded(), "{}", function.log());
    assert_eq!(function.log(), "");
}

const CONNECT: &str = "\
import os, socket, tempfile
for kind in (socket.AF_INET, socket.SOCK_STREAM, 262), (socket.AF_INET, socket.SOCK_DGRAM, 0), \\
        (socket.AF_INET, socket.SOCK_RAW, 6), (socket.AF_NETLINK, socket.SOCK_RAW, 0), \\
        (socket.AF_UNIX, socket.SOCK_STREAM, 0):
    try: socket.socket(*kind)
    except PermissionError: continue
    print('breach:', kind)
a, b = socket.socketpair()
for port in os.environ['PORTS'].split():
    try: socket.create_connection(('127.0.0.1', int(port)), 5).close()
    except PermissionError: continue
    print('connected', port)
try:
    socket.socket().sendto(b'x', 0x20000000, ('127.0.0.1', int(os.environ['PORTS'].split()[1])))
    print('breach: fast open')
except PermissionError: pass
try:
    socket.create_server(('127.0.0.1', 0))
    print('breach: listening')
except PermissionError: pass
";

#[tokio::test]
async fn promise_8_it_connects_only_to_the_ports_that_it_was_given() {
    if confinement_available() < Level::Network {
        return;
    }
    let open = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let [given, other] = [0, 1].map(|i: usize| open[i].local_addr().unwrap().port());
    let function = Invocation::python(CONNECT)
        .environment("PORTS", format!("{given} {other}"))
        .with(|run| run.tcp_ports = vec![given]);
    let outcome = function.run().await;
    assert!(outcome.succeeded(), "{}", function.log());
    assert_eq!(function.log(), format!("connected {given}\n"));

    let function = function.with(|run| run.tcp_ports.clear());
    function.run().await;
    assert_eq!(function.log(), "");
}

#[tokio::test]
async fn memory_is_limited() {
    let function = Invocation::python("x = bytearray(300 << 20)").with(|run| run.memory_bytes = 128 << 20);
    let outcome = function.run().await;
    assert_eq!(outcome.exit, Exit::Exited(1));
    assert_eq!(outcome.last_line.as_deref(), Some("MemoryError"));
    let function = function.with(|run| run.memory_bytes = 512 << 20);
    assert!(function.run().await.succeeded());
}

#[tokio::test]
async fn files_that_were_open_before_the_agent_are_closed() {
    let function = Invocation::shell("(cat <&7) 2>/dev/null && echo breach; true");
    let leaking = "exec 7</etc/passwd; exec \"$0\"";
    let shim = ["/bin/sh", "-c", leaking, SHIM].map(Into::into).to_vec();
    let runtimes = Runtimes::discover(Options { shim, ..Options::default() }).await;
    let outcome = runtimes.run(&function.run).await;
    assert!(outcome.succeeded(), "{outcome:?} {}", function.log());
    assert_eq!(function.log(), "");
}

#[test]
fn a_process_that_confines_itself_reads_what_it_named_and_nothing_else_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let (named, other) = (path.join("named"), path.join("other"));
    for file in [&named, &other] {
        std::fs::write(file, "content").unwrap();
    }
    // Files and sockets are forbidden to one thread, so that the others of this test can go on.
    let confined = std::thread::spawn(move || {
        avocet_runtimes::confine_this_process(std::slice::from_ref(&named), u64::MAX, false).unwrap();
        assert_eq!(std::fs::read_to_string(&named).unwrap(), "content");
        let denied = [
            std::fs::read_to_string(&other).map(drop),
            std::fs::write(&named, "changed"),
            std::fs::read_dir(&path).map(drop),
            std::net::TcpListener::bind("127.0.0.1:0").map(drop),
            std::os::unix::net::UnixStream::connect("/run/any.sock").map(drop),
        ];
        denied.map(|denied| denied.unwrap_err().kind())
    });
    assert_eq!(confined.join().unwrap(), [std::io::ErrorKind::PermissionDenied; 5]);
}
