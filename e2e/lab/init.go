package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// initName is the name under which this program is a machine's init process.
const initName = "skep-lab-machine"

// The orders that an init process takes, one a line, words divided by tabs, and its answers: "ok TEXT" or "no TEXT".
const (
	orderStart = "start"
	orderEnd   = "end"
	orderState = "state"

	answerOK  = "ok"
	answerNo  = "no"
	stateRuns = "runs"
)

// pollPeriod is the time between two looks at something that can't be waited for.
const pollPeriod = 5 * time.Millisecond

// pause waits one poll period, or returns ctx's error.
func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(pollPeriod):
		return nil
	}
}

// Main makes this process a machine's init process if it was started as one, and does not return then.
func Main() {
	if len(os.Args) != 3 || os.Args[0] != initName {
		return
	}
	if err := runInit(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "lab: machine", os.Args[1]+":", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// machineInit is pid 1 of a machine.
type machineInit struct {
	logFile *os.File

	// mu guards the daemon, which the reaper and the orders share.
	mu     sync.Mutex
	daemon int
	ended  chan struct{}
	state  string
}

func runInit(hostname, logFile string) error {
	if err := prepare(hostname); err != nil {
		return err
	}
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	i := &machineInit{logFile: log, state: "never started"}
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	go i.reap(children)
	fmt.Println(answerOK, "up")
	return i.serve(os.Stdin)
}

// prepare makes the namespaces a machine's: a host name, its own /proc and /run, and mounts that nobody else sees.
func prepare(hostname string) error {
	return errors.Join(
		syscall.Sethostname([]byte(hostname)),
		syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""),
		syscall.Mount("proc", "/proc", "proc", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, ""),
		syscall.Mount("tmpfs", "/run", "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV, "mode=0755"),
	)
}

// serve takes orders until its input ends, which is when the lab is gone.
func (i *machineInit) serve(orders io.Reader) error {
	scanner := bufio.NewScanner(orders)
	for scanner.Scan() {
		text, err := i.obey(strings.Split(scanner.Text(), "\t"))
		if err != nil {
			fmt.Println(answerNo, err)
			continue
		}
		fmt.Println(answerOK, text)
	}
	return scanner.Err()
}

func (i *machineInit) obey(words []string) (string, error) {
	switch words[0] {
	case orderStart:
		return "", i.start(words[1:])
	case orderEnd:
		number, err := strconv.Atoi(words[1])
		if err != nil {
			return "", err
		}
		return "", i.end(syscall.Signal(number))
	case orderState:
		i.mu.Lock()
		defer i.mu.Unlock()
		return i.state, nil
	default:
		return "", fmt.Errorf("unknown order %q", words[0])
	}
}

func (i *machineInit) start(command []string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.daemon != 0 {
		return errors.New("the daemon runs already")
	}
	process := exec.Command(command[0], command[1:]...)
	process.Stdout, process.Stderr = i.logFile, i.logFile
	process.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := process.Start(); err != nil {
		return err
	}
	i.daemon, i.ended, i.state = process.Process.Pid, make(chan struct{}), stateRuns
	// The reaper collects it, as it collects every other child.
	return process.Process.Release()
}

func (i *machineInit) end(signal syscall.Signal) error {
	i.mu.Lock()
	pid, ended := i.daemon, i.ended
	i.mu.Unlock()
	if pid == 0 {
		return errors.New("the daemon does not run")
	}
	if err := syscall.Kill(pid, signal); err != nil {
		return err
	}
	<-ended
	return nil
}

// reap collects every process that ends on the machine, as init must: the daemon's own, and orphans.
func (i *machineInit) reap(children <-chan os.Signal) {
	for range children {
		for {
			var status syscall.WaitStatus
			pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
			if err != nil || pid <= 0 {
				break
			}
			i.collected(pid, status)
		}
	}
}

func (i *machineInit) collected(pid int, status syscall.WaitStatus) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if pid != i.daemon {
		return
	}
	i.daemon = 0
	i.state = fmt.Sprintf("exit code %d, signal %d", status.ExitStatus(), status.Signal())
	close(i.ended)
}
