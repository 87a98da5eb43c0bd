// Command inside is the program that runtime tests run in containers. It says what it sees and what it may do.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Report is what a container looks like from inside.
type Report struct {
	Namespaces map[string]string // link targets of /proc/self/ns
	Status     map[string]string // /proc/self/status
	UIDMap     string
	Mounts     map[string]string // mount point: options and file system type
	FDs        []string
	Cgroup     string
	Hostname   string
	Cwd        string
	Args, Env  []string
	Interfaces []string
	Stdin      string
	Stdout     string
	Limits     string
}

func read(name string) string {
	b, err := os.ReadFile(name)
	if err != nil {
		return "error: " + err.Error()
	}
	return string(b)
}

func look() Report {
	r := Report{
		Namespaces: map[string]string{}, Status: map[string]string{}, Mounts: map[string]string{},
		UIDMap: strings.Join(strings.Fields(read("/proc/self/uid_map")), " "), Cgroup: read("/proc/self/cgroup"),
		Args: os.Args, Env: os.Environ(), Limits: read("/proc/self/limits"),
	}
	r.Hostname, _ = os.Hostname()
	r.Cwd, _ = os.Getwd()
	for _, n := range []string{"user", "mnt", "pid", "net", "ipc", "uts", "cgroup"} {
		r.Namespaces[n], _ = os.Readlink("/proc/self/ns/" + n)
	}
	for line := range strings.Lines(read("/proc/self/status")) {
		if key, value, ok := strings.Cut(line, ":"); ok {
			r.Status[key] = strings.TrimSpace(value)
		}
	}
	for line := range strings.Lines(read("/proc/self/mountinfo")) {
		left, right, _ := strings.Cut(line, " - ")
		f := strings.Fields(left)
		if f[4] == "/" && r.Mounts["/"] != "" {
			f[4] = "/.." // what is stacked on the root is to be found there
		}
		r.Mounts[f[4]] = f[5] + " " + strings.Fields(right)[0]
	}
	fds, _ := os.ReadDir("/proc/self/fd")
	for _, fd := range fds {
		to, err := os.Readlink("/proc/self/fd/" + fd.Name())
		if err == nil && !strings.HasPrefix(to, "anon_inode:") && !strings.HasPrefix(to, "/sys/fs/cgroup/") { // Go's own
			r.FDs = append(r.FDs, fd.Name())
		}
	}
	all, _ := net.Interfaces()
	for _, i := range all {
		r.Interfaces = append(r.Interfaces, i.Name+" "+i.Flags.String())
	}
	r.Stdin, _ = os.Readlink("/proc/self/fd/0")
	r.Stdout, _ = os.Readlink("/proc/self/fd/1")
	return r
}

// try gives the error of each thing that a container must not be able to do.
func try() map[string]string {
	procs := "/sys/fs/cgroup/cgroup.procs"
	if _, err := os.Stat(procs); err != nil {
		procs = "/sys/fs/cgroup/memory/cgroup.procs" // v1
	}
	errs := map[string]error{
		"mknod":         syscall.Mknod("/dev/shm/null", syscall.S_IFCHR|0o666, 1<<8|3),
		"mount":         syscall.Mount("tmpfs", "/", "tmpfs", 0, ""),
		"unshare user":  syscall.Unshare(syscall.CLONE_NEWUSER),
		"unshare mount": syscall.Unshare(syscall.CLONE_NEWNS),
		"sethostname":   syscall.Sethostname([]byte("evil")),
		"settimeofday":  syscall.Settimeofday(&syscall.Timeval{}),
		"reboot":        syscall.Reboot(0xfee1dead),
		"swapon":        errnoOf(syscall.Syscall(syscall.SYS_SWAPON, 0, 0, 0)),
		"bpf":           errnoOf(syscall.Syscall(unix.SYS_BPF, 0, 0, 0)),
		"keyctl":        errnoOf(syscall.Syscall(syscall.SYS_KEYCTL, 0, 0, 0)),
		"new call":      errnoOf(syscall.Syscall(5000, 0, 0, 0)),
		"cgroup":        os.WriteFile(procs, []byte("1"), 0o600),
		"rootfs write":  os.WriteFile("/written", nil, 0o600),
		"proc sys":      os.WriteFile("/proc/sys/kernel/hostname", []byte("x"), 0o600),
		"sysrq":         os.WriteFile("/proc/sysrq-trigger", []byte("h"), 0o600),
		"sys":           os.WriteFile("/sys/kernel/mm/ksm/run", []byte("0"), 0o600),
		"secret write":  os.WriteFile("/run/secrets/key", []byte("x"), 0o600),
	}
	out := map[string]string{}
	for name, err := range errs {
		out[name] = "ok"
		var errno syscall.Errno
		if e, ok := err.(*os.PathError); ok {
			err = e.Err
		}
		if e, ok := err.(syscall.Errno); ok {
			errno = e
		}
		if err != nil {
			out[name] = fmt.Sprintf("%s", errno)
		}
	}
	for _, name := range []string{"/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/interrupts"} {
		b, err := os.ReadFile(name)
		out["read "+name] = fmt.Sprintf("%d bytes", len(b))
		if err != nil {
			out["read "+name] = "error"
		}
	}
	entries, err := os.ReadDir("/sys/firmware")
	out["list /sys/firmware"] = fmt.Sprintf("%d entries, %v", len(entries), err)
	return out
}

func errnoOf(_, _ uintptr, e syscall.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}

func printJSON(v any) {
	if err := json.NewEncoder(os.Stdout).Encode(v); err != nil {
		os.Exit(99)
	}
}

// files gives content, mode and owner of files, and what their file system is.
func files(names []string) map[string]string {
	out := map[string]string{}
	for _, n := range names {
		st, err := os.Stat(n)
		if err != nil {
			out[n] = err.Error()
			continue
		}
		sys := st.Sys().(*syscall.Stat_t)
		var fs syscall.Statfs_t
		_ = syscall.Statfs(n, &fs)
		out[n] = fmt.Sprintf("%s %v %d:%d fs %#x", read(n), st.Mode().Perm(), sys.Uid, sys.Gid, fs.Type)
	}
	return out
}

func labels(names []string) map[string]string {
	out := map[string]string{}
	for _, n := range names {
		label := make([]byte, 4096)
		size, err := unix.Getxattr(n, "security.selinux", label)
		if err != nil {
			out[n] = err.Error()
			continue
		}
		out[n] = strings.TrimRight(string(label[:size]), "\x00")
	}
	return out
}

func number(i int) int {
	n, _ := strconv.Atoi(os.Args[i])
	return n
}

func main() {
	switch filepath.Base(os.Args[1]) {
	case "look":
		printJSON(look())
	case "reopen": // standard output, by its name
		f, err := os.OpenFile("/dev/stdout", os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Fprintln(f, "reopened")
	case "try":
		printJSON(try())
	case "call": // who listens on an abstract unix socket, and print what it says
		fmt.Println(call(os.Args[2]))
	case "borrow": // a directory from who listens on /share/s, and read a file in it
		fmt.Println(borrow())
	case "cat": // what is read, to both outputs
		_, _ = io.Copy(io.MultiWriter(os.Stdout, os.Stderr), os.Stdin)
	case "terminal": // what the terminal is; again for each line that is typed
		for in := bufio.NewScanner(os.Stdin); ; {
			size, _ := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ)
			name, _ := os.Readlink("/proc/self/fd/0")
			st, _ := os.Stat(name)
			_, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
			fmt.Printf("%s %v %dx%d controlling %v\n", name, st.Mode().Perm(), size.Row, size.Col, err == nil)
			if !in.Scan() {
				return
			}
		}
	case "files":
		printJSON(files(os.Args[2:]))
	case "labels": // of SELinux, that files have
		printJSON(labels(os.Args[2:]))
	case "exit":
		os.Exit(number(2))
	case "say":
		fmt.Println(strings.Join(os.Args[2:], " "))
		fmt.Fprintln(os.Stderr, "to stderr")
	case "spam":
		for i := range number(2) {
			fmt.Printf("line %d %s\n", i, strings.Repeat("x", number(3)))
		}
	case "wait": // until a signal; SIGTERM ends it with 7
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGTERM, syscall.SIGUSR1)
		fmt.Println("waiting")
		for s := range c {
			fmt.Println("got", s)
			if s == syscall.SIGTERM {
				os.Exit(7)
			}
		}
	case "eat": // memory, in MiB
		var all [][]byte
		for range number(2) {
			b := make([]byte, 1<<20)
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
			all = append(all, b)
		}
		fmt.Println("ate", len(all))
	case "eat-child": // a child that eats memory, which the kernel prefers to kill
		err := exec.Command("/inside", "eat", os.Args[2]).Run()
		fmt.Println("child ended with", err)
		time.Sleep(time.Minute)
	case "fork": // as many children as it may, by bare system calls: Go's runtime ends a process that can't have another thread
		started := 0
		for range number(2) {
			pid, _, err := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
			if err != 0 {
				break
			}
			for pid == 0 {
				_, _, _ = unix.RawSyscall6(unix.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
			}
			started++
		}
		fmt.Println("started", started)
	case "dial": // from outside a container
		c, err := net.Dial("unix", os.Args[2])
		if err != nil {
			fmt.Println(err)
			return
		}
		_, err = c.Read(make([]byte, 1))
		fmt.Println("connected, then", err)
	case "abort":
		_ = syscall.Kill(os.Getpid(), syscall.SIGABRT)
		select {}
	}
}

// call connects to an abstract unix socket, and returns what it says.
func call(name string) (string, error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: "@" + name})
	if err != nil {
		return "", err
	}
	defer conn.Close()
	text, err := io.ReadAll(io.LimitReader(conn, 64))
	return string(text), err
}

// borrow takes a descriptor of a directory out of a socket, and reads the file "name" by it.
func borrow() (string, error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: "/share/s"})
	if err != nil {
		return "", err
	}
	defer conn.Close()
	control := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := conn.ReadMsgUnix(make([]byte, 1), control)
	if err != nil {
		return "", err
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil || len(messages) != 1 {
		return "", fmt.Errorf("%d messages, %w", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return "", err
	}
	fd, err := unix.Openat(fds[0], "name", unix.O_RDONLY, 0)
	if err != nil {
		return "", err
	}
	text := make([]byte, 64)
	n, err = unix.Read(fd, text)
	return string(text[:max(n, 0)]), err
}
