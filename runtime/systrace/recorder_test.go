package systrace_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/systrace"
)

// rehearsed names what this program does when it is run in a namespace by a test.
const rehearsed = "SKEP_SYSTRACE_TEST"

func TestMain(m *testing.M) {
	if scene := os.Getenv(rehearsed); scene != "" {
		perform(scene)
	}
	os.Exit(m.Run())
}

// perform is what runs in the namespace. It does the scene after a byte of input, says so by one of output, and waits for the end of
// its input.
func perform(scene string) {
	runtime.LockOSThread()
	in := bufio.NewReader(os.Stdin)
	if scene == "wait" {
		fmt.Print("r")
		for { // a signal may end it
			_, _ = unix.Ppoll(nil, nil, nil)
		}
	}
	_, _ = in.ReadByte()
	switch scene {
	case "use":
		_, _ = unix.Getpriority(unix.PRIO_PROCESS, 0)
	case "refuse":
		if err := refuse(unix.SYS_ACCT); err != nil {
			panic(err)
		}
		if err := unix.Acct(""); !errors.Is(err, unix.EPERM) {
			panic(err)
		}
		// An error of the call itself is no refusal.
		const tooLong = 65 // so that it changes nothing
		if err := unix.Sethostname(make([]byte, tooLong)); !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EPERM) {
			panic(err)
		}
		_, _ = unix.Open("/nothing/here", unix.O_RDONLY, 0)
	case "interrupt":
		signal.Notify(make(chan os.Signal, 1), unix.SIGUSR1)
		thread := unix.Gettid()
		go func() {
			for { // until it hits a call that is interrupted by it
				_ = unix.Tgkill(os.Getpid(), thread, unix.SIGUSR1)
			}
		}()
		for {
			pause := unix.NsecToTimespec(int64(time.Second))
			if _, err := unix.Ppoll(nil, &pause, nil); errors.Is(err, unix.EINTR) {
				break
			}
		}
	case "launch":
		name := append([]byte(systrace.LauncherName), 0)
		_, _, _ = unix.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name[0])), 0)
		_, _ = unix.Getpriority(unix.PRIO_PROCESS, 0)
	case "child":
		if err := exec.Command(os.Args[1]).Run(); err != nil {
			panic(err)
		}
	}
	fmt.Print("d")
	_, _ = io.Copy(io.Discard, in)
	os.Exit(0)
}

// refuse has one call fail with EPERM from now on, in this thread.
func refuse(number uint32) error {
	filter, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 0, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: number, SkipFalse: 1},
		bpf.RetConstant{Val: 0x00050000 | uint32(unix.EPERM)}, // SECCOMP_RET_ERRNO
		bpf.RetConstant{Val: 0x7fff0000},                      // SECCOMP_RET_ALLOW
	})
	if err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: (*unix.SockFilter)(unsafe.Pointer(&filter[0]))}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return errno
	}
	return nil
}

// open opens a recorder, or skips the test.
func open(t *testing.T) *systrace.Recorder {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: to load programs into the kernel, and to make pid namespaces")
	}
	r, err := systrace.Open()
	if errors.Is(err, systrace.ErrKernel) {
		t.Skip("needs a kernel that records system calls:", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// play runs this program as the first of a pid namespace. The scene begins when go is called, which returns when it was done.
func play(t testing.TB, scene string, args ...string) (pid int, run func(), end func()) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), rehearsed+"="+scene)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID, Pdeathsig: unix.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	end = func() {
		if !ended {
			ended = true
			in.Close()
			_ = cmd.Process.Kill() // fails if it has ended
			_ = cmd.Wait()
		}
	}
	t.Cleanup(end)
	run = func() {
		t.Helper()
		if scene != "wait" {
			if _, err := in.Write([]byte{'g'}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := io.ReadFull(out, make([]byte, 1)); err != nil {
			t.Fatal("the scene was not finished:", err)
		}
	}
	return cmd.Process.Pid, run, end
}

func read(t *testing.T, r *systrace.Recorder) systrace.Calls {
	t.Helper()
	calls, err := r.Read()
	if err != nil {
		t.Fatal(err)
	}
	return calls
}

func native(number uint32) systrace.Call { return systrace.Call{Number: number} }

func TestFollow_CountsCallsOfTheNamespaceOnly(t *testing.T) {
	r := open(t)
	pid, run, _ := play(t, "use")
	if err := r.Follow(pid); err != nil {
		t.Fatal(err)
	}
	if err := r.Follow(pid); err != nil { // again, which is the same
		t.Fatal(err)
	}
	_, _, _ = unix.RawSyscall(unix.SYS_GETSID, 0, 0, 0) // this process is in another namespace
	if calls := read(t, r); slices.Contains(calls.Used, native(unix.SYS_GETPRIORITY)) {
		t.Error("getpriority is used before it was called")
	}
	run()
	calls := read(t, r)
	if !slices.Contains(calls.Used, native(unix.SYS_GETPRIORITY)) || !slices.Contains(calls.Used, native(unix.SYS_WRITE)) {
		t.Errorf("used: %v, want getpriority (%d) and write among them", calls.Used, unix.SYS_GETPRIORITY)
	}
	if slices.Contains(calls.Used, native(unix.SYS_GETSID)) {
		t.Error("a call of a process outside counts")
	}
	if len(calls.Refused) > 0 || calls.OtherUsed || calls.OtherRefused {
		t.Errorf("refused: %v, others %v and %v, want none", calls.Refused, calls.OtherUsed, calls.OtherRefused)
	}
}

func TestFollow_TellsWhatAFilterRefuses(t *testing.T) {
	r := open(t)
	pid, run, _ := play(t, "refuse")
	if err := r.Follow(pid); err != nil {
		t.Fatal(err)
	}
	run()
	calls := read(t, r)
	if !slices.Equal(calls.Refused, []systrace.Call{native(unix.SYS_ACCT)}) {
		t.Errorf("refused: %v, want acct (%d) only", calls.Refused, unix.SYS_ACCT)
	}
	if slices.Contains(calls.Used, native(unix.SYS_ACCT)) || !slices.Contains(calls.Used, native(unix.SYS_SETHOSTNAME)) {
		t.Errorf("used: %v, want sethostname (%d) and not acct", calls.Used, unix.SYS_SETHOSTNAME)
	}
}

// A handler's return shows the result of what it interrupted once more, which is no refusal.
func TestFollow_TakesNoInterruptedCallForRefused(t *testing.T) {
	r := open(t)
	pid, run, _ := play(t, "interrupt")
	if err := r.Follow(pid); err != nil {
		t.Fatal(err)
	}
	run()
	calls := read(t, r)
	if !slices.Contains(calls.Used, native(unix.SYS_RT_SIGRETURN)) {
		t.Errorf("used: %v, want rt_sigreturn (%d) among them", calls.Used, unix.SYS_RT_SIGRETURN)
	}
	if len(calls.Refused) > 0 || calls.OtherRefused {
		t.Errorf("refused: %v, others %v; want none", calls.Refused, calls.OtherRefused)
	}
}

func TestFollow_LeavesOutTheLauncher(t *testing.T) {
	r := open(t)
	pid, run, _ := play(t, "launch")
	if err := r.Follow(pid); err != nil {
		t.Fatal(err)
	}
	run()
	if calls := read(t, r); slices.Contains(calls.Used, native(unix.SYS_GETPRIORITY)) {
		t.Error("a call of a process that has the launcher's name counts")
	}
}

// A server that waits for its first client makes no other call for as long.
func TestFollow_FindsCallsThatAreUnderWay(t *testing.T) {
	r := open(t)
	pid, run, _ := play(t, "wait")
	run()
	for text := ""; !strings.HasPrefix(text, fmt.Sprint(unix.SYS_PPOLL, " ")); { // it is on its way there
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", pid))
		if err != nil {
			t.Fatal(err)
		}
		text = string(b)
	}
	if err := r.Follow(pid); err != nil {
		t.Fatal(err)
	}
	if calls := read(t, r); !slices.Contains(calls.Used, native(unix.SYS_PPOLL)) {
		t.Errorf("used: %v, want ppoll (%d) among them", calls.Used, unix.SYS_PPOLL)
	}
}

func TestFollow_TellsCallsByThe32BitABI(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("has a 32-bit program for amd64 only")
	}
	const getpgrp = 65 // of i386
	r := open(t)
	program := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(program, program32(getpgrp), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := exec.Command(program).Run(); errors.Is(err, unix.ENOEXEC) {
		t.Skip("needs a kernel that runs 32-bit programs (CONFIG_IA32_EMULATION)")
	}
	pid, run, _ := play(t, "child", program)
	if err := r.Follow(pid); err != nil {
		t.Fatal(err)
	}
	run()
	calls := read(t, r)
	if !slices.Contains(calls.Used, systrace.Call{Number: getpgrp, Compat: true}) || slices.Contains(calls.Used, native(getpgrp)) {
		t.Errorf("used: %v, want %d by the 32-bit ABI only", calls.Used, getpgrp)
	}
}

// program32 is an ELF file for i386 that makes one call and exits with 0.
func program32(call byte) []byte {
	code := []byte{0xb8, call, 0, 0, 0, 0xcd, 0x80, 0xb8, 1, 0, 0, 0, 0x31, 0xdb, 0xcd, 0x80} // mov eax,…; int 0x80; exit(0)
	const base, head = 0x08048000, 84
	word := func(v uint32) []byte { return []byte{byte(v), byte(v >> 8), byte(v >> 16), byte(v >> 24)} }
	half := func(v uint16) []byte { return []byte{byte(v), byte(v >> 8)} }
	size := word(head + uint32(len(code)))
	return slices.Concat([]byte("\x7fELF\x01\x01\x01"), make([]byte, 9), half(2), half(3), word(1), word(base+head), word(52), word(0), word(0),
		half(52), half(32), half(1), half(0), half(0), half(0),
		word(1), word(0), word(base), word(base), size, size, word(5), word(0x1000), code)
}

func TestFollow_ForgetsWhatHasEnded(t *testing.T) {
	r := open(t)
	pid, _, end := play(t, "use")
	end()
	if err := r.Follow(pid); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("follow a process that has ended: %v, want os.ErrProcessDone", err)
	}
	if err := r.Follow(os.Getpid()); !errors.Is(err, systrace.ErrShared) {
		t.Errorf("follow this process: %v, want ErrShared", err)
	}
	const most = 16
	for range most + 1 { // one after the other, which is no more than one at a time
		pid, run, end := play(t, "use")
		if err := r.Follow(pid); err != nil {
			t.Fatal(err)
		}
		run()
		end()
	}
}

func TestClose_LeavesNothing(t *testing.T) {
	before := bpfFiles(t)
	r := open(t)
	pid, _, _ := play(t, "use")
	if err := r.Follow(pid); err != nil {
		t.Fatal(err)
	}
	if now := bpfFiles(t); now <= before {
		t.Errorf("%d descriptors of BPF objects while recording, %d before", now, before)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if after := bpfFiles(t); after != before {
		t.Errorf("%d descriptors of BPF objects after Close, %d before Open", after, before)
	}
}

// bpfFiles counts the descriptors of this process that keep something in the kernel alive.
func bpfFiles(t *testing.T) (n int) {
	t.Helper()
	files, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if to, err := os.Readlink(f); err == nil && strings.Contains(to, "bpf") {
			n++
		}
	}
	return n
}
