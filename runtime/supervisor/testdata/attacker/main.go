// Command attacker is the program of a hostile container. Each of its words is one attack; it says on standard output
// how far that went, and the test decides.
package main

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

func main() {
	word, args := os.Args[1], os.Args[2:]
	switch word {
	case "writable":
		say(writable(args))
	case "open":
		say(open(args))
	case "reach":
		say(reach(number(args[0]), args[1]))
	case "victim":
		victim(args[0])
	case "ids":
		say([]int{os.Getuid(), os.Geteuid()})
	case "stubborn":
		signal.Ignore()
		fmt.Println("ready")
		rest()
	default:
		exhaust(word, args)
	}
}

func say(v any) {
	if err := json.NewEncoder(os.Stdout).Encode(v); err != nil {
		os.Exit(99)
	}
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		os.Exit(98)
	}
	return n
}

// ownProcess are the parts of /proc that a process has of itself.
var ownProcess = regexp.MustCompile(`^/proc/([0-9]+|self|thread-self)(/|$)`)

// writable lists what can be opened for writing below the given directories, but for what a process has of itself.
func writable(dirs []string) []string {
	out := []string{}
	for _, dir := range dirs {
		_ = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			switch {
			case ownProcess.MatchString(path):
				return fs.SkipDir
			case err != nil:
				return nil
			}
			if st, err := os.Lstat(path); err != nil || !st.Mode().IsRegular() { // what is mounted there, not what is below
				return nil
			}
			if fd, err := unix.Open(path, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err == nil {
				unix.Close(fd)
				out = append(out, path)
			}
			return nil
		})
	}
	return out
}

// open says of each file whether it can be read or written: "ok" or the error.
func open(files []string) map[string]string {
	out := map[string]string{}
	for _, name := range files {
		out[name] = text(use(name))
	}
	return out
}

func use(name string) error {
	fd, err := unix.Open(name, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func text(err error) string {
	if err == nil {
		return "ok"
	}
	return err.Error()
}

// reach tries to get at a process outside, by the number that the host knows it by, and at its socket.
func reach(pid int, socket string) map[string]string {
	buffer := make([]byte, 16)
	local := unix.Iovec{Base: &buffer[0], Len: 16}
	remote := unix.RemoteIovec{Base: uintptr(unsafe.Pointer(&buffer[0])), Len: 16}
	_, read := unix.ProcessVMReadv(pid, []unix.Iovec{local}, []unix.RemoteIovec{remote}, 0)
	_, pidfd := unix.PidfdOpen(pid, 0)
	_, dial := net.Dial("unix", "@"+socket)
	_, stat := os.Stat(fmt.Sprintf("/proc/%d", pid))
	_, _, shared := unix.Syscall(unix.SYS_SHMGET, sharedKey, 0, 0)
	out := map[string]string{
		"signal":        text(unix.Kill(pid, unix.SIGKILL)),
		"signal all":    text(unix.Kill(-1, unix.SIGKILL)),
		"trace":         text(unix.PtraceAttach(pid)),
		"read memory":   text(read),
		"pidfd":         text(pidfd),
		"see":           "ok",
		"dial":          "ok",
		"priority":      text(unix.Setpriority(unix.PRIO_PROCESS, pid, 19)),
		"shared memory": text(shared),
	}
	if stat != nil {
		out["see"] = "not there"
	}
	if dial != nil {
		out["dial"] = "refused"
	}
	return out
}

// sharedKey names a segment of System V shared memory.
const sharedKey = 0x534b4550

// victim offers what reach looks for, and lives until it is told to end.
func victim(socket string) {
	l, err := net.Listen("unix", "@"+socket)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	defer l.Close()
	if _, _, errno := unix.Syscall(unix.SYS_SHMGET, sharedKey, 4096, unix.IPC_CREAT|0o666); errno != 0 {
		fmt.Println(errno)
		os.Exit(1)
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	fmt.Println("ready")
	<-term
	os.Exit(7)
}

// rest does nothing for ever.
func rest() {
	for {
		_ = unix.Pause()
	}
}
