package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netns"
)

// Machine is one node: namespaces, a disk, and the daemon that may run on it.
type Machine struct {
	// Name is the host name, and Address the only address on the network.
	Name    string
	Address netip.Addr
	// Dir holds the machine's disk, socket and log.
	Dir string

	network *Network
	number  int
	spaceMu sync.Mutex
	space   netns.NsHandle // guarded by spaceMu
	// programs are what runs when the daemon is started next, and as the command line.
	programs Programs
	// extra are daemon flags beside the usual ones.
	extra []string

	// mu guards the init process and its conversation.
	mu      sync.Mutex
	process *exec.Cmd
	orders  io.WriteCloser
	answers *bufio.Reader
}

// NewMachine adds a machine to the network and powers it on. Its daemon does not run yet; extra are flags for it.
func (n *Network) NewMachine(name string, extra ...string) (*Machine, error) {
	if n.Machine(name) != nil || len(n.machines) == maxMachines {
		return nil, fmt.Errorf("machine %s: the name is taken, or there are %d machines", name, maxMachines)
	}
	space, err := inNewNamespace(func() error { return nil })
	if err != nil {
		return nil, err
	}
	number := len(n.machines) + 1
	m := &Machine{
		Name: name, Address: address(number), Dir: filepath.Join(n.dir, name),
		network: n, number: number, space: space, extra: extra, programs: n.programs,
	}
	n.machines = append(n.machines, m)
	if err := os.MkdirAll(m.Dir, 0o700); err != nil {
		return nil, err
	}
	if err := n.plug(m); err != nil {
		return nil, err
	}
	return m, m.PowerOn()
}

// Socket is the path of the daemon's unix socket, and LogFile that of what the daemon prints.
func (m *Machine) Socket() string { return filepath.Join(m.Dir, "skep.sock") }

// LogFile is the path of what the daemon prints.
func (m *Machine) LogFile() string { return filepath.Join(m.Dir, "daemon.log") }

// DataDir is the daemon's data directory.
func (m *Machine) DataDir() string { return filepath.Join(m.Dir, "data") }

// CgroupParent is the cgroup below which the machine's containers are.
func (m *Machine) CgroupParent() string { return m.network.group + "-" + m.Name }

// daemonCommand is what Start runs on the machine.
func (m *Machine) daemonCommand() []string {
	p := m.programs
	return append([]string{
		p.Skep, "daemon", "--data-dir", m.DataDir(), "--socket", m.Socket(), "--runtime", p.Runtime,
		"--builtin-image", p.Image, "--cgroup-parent", m.CgroupParent(),
	}, m.extra...)
}

// AddFlags adds to the daemon's flags, from its next start on; of a flag that is given twice the last counts.
func (m *Machine) AddFlags(flags ...string) { m.extra = append(m.extra, flags...) }

// Install replaces the machine's programs, as an upgrade does: what runs goes on, the daemon is the new one once it is started again.
func (m *Machine) Install(p Programs) { m.programs = p }

// PowerOn starts the machine's init process. The machine must be off.
func (m *Machine) PowerOn() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	process := exec.Command("/proc/self/exe")
	process.Args = []string{initName, m.Name, m.LogFile()}
	process.Stderr = os.Stderr
	process.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
	}
	orders, err := process.StdinPipe()
	if err != nil {
		return err
	}
	answers, err := process.StdoutPipe()
	if err != nil {
		return err
	}
	if err := m.network.Mend(m); err != nil {
		return fmt.Errorf("power %s on: %w", m.Name, err)
	}
	if err := within(m.namespace(), process.Start); err != nil {
		return fmt.Errorf("power %s on: %w", m.Name, err)
	}
	m.process, m.orders, m.answers = process, orders, bufio.NewReader(answers)
	_, err = m.answer()
	return err
}

// order tells the init process something and returns its answer. The caller holds mu.
func (m *Machine) order(words ...string) (string, error) {
	if m.process == nil {
		return "", fmt.Errorf("machine %s is off", m.Name)
	}
	if _, err := fmt.Fprintln(m.orders, strings.Join(words, "\t")); err != nil {
		return "", fmt.Errorf("machine %s: %w", m.Name, err)
	}
	return m.answer()
}

func (m *Machine) answer() (string, error) {
	line, err := m.answers.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("machine %s died: %w", m.Name, err)
	}
	verdict, text, _ := strings.Cut(strings.TrimSpace(line), " ")
	if verdict != answerOK {
		return "", fmt.Errorf("machine %s: %s", m.Name, text)
	}
	return text, nil
}

// Start starts the daemon and returns when it answers on its socket, or has ended.
func (m *Machine) Start(ctx context.Context) error {
	if err := m.Run(m.daemonCommand()...); err != nil {
		return err
	}
	return m.await(ctx)
}

// Run starts a program on the machine in place of the daemon, and does not wait for it. PowerOff ends it with all that it started.
func (m *Machine) Run(command ...string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, err := m.order(append([]string{orderStart}, command...)...)
	return err
}

// await returns when the daemon accepts connections.
func (m *Machine) await(ctx context.Context) error {
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", m.Socket())
		if err == nil {
			return conn.Close()
		}
		m.mu.Lock()
		state, stateErr := m.order(orderState)
		m.mu.Unlock()
		if stateErr != nil {
			return stateErr
		}
		if state != stateRuns {
			return fmt.Errorf("the daemon of %s has ended (%s): see %s", m.Name, state, m.LogFile())
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("the daemon of %s does not answer: see %s: %w", m.Name, m.LogFile(), err)
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
}

// Kill sends the daemon SIGKILL and waits for its end. Containers go on.
func (m *Machine) Kill() error { return m.end(syscall.SIGKILL) }

// Stop sends the daemon SIGTERM and waits for its end. Containers go on.
func (m *Machine) Stop() error { return m.end(syscall.SIGTERM) }

func (m *Machine) end(signal syscall.Signal) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, err := m.order(orderEnd, fmt.Sprint(int(signal)))
	return err
}

// DaemonPID returns the daemon's pid as this process sees it, or 0.
func (m *Machine) DaemonPID() int { return m.find(filepath.Base(m.programs.Skep)) }

// PID returns the pid of the machine's init process as this process sees it, or 0 when the machine is off.
func (m *Machine) PID() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.process == nil {
		return 0
	}
	return m.process.Process.Pid
}

// find returns the pid of the machine's process with that command name, or 0.
func (m *Machine) find(command string) int {
	for pid, name := range m.Processes() {
		if name == command {
			return pid
		}
	}
	return 0
}

// Processes returns the command names of all the machine's processes by pid, as this process sees them.
func (m *Machine) Processes() map[int]string {
	out := map[int]string{}
	var walk func(pid int)
	walk = func(pid int) {
		if name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err == nil {
			out[pid] = strings.TrimSpace(string(name))
		}
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
		for _, task := range tasks {
			children, err := os.ReadFile(task)
			if err != nil {
				continue
			}
			for _, field := range strings.Fields(string(children)) {
				var child int
				if _, err := fmt.Sscan(field, &child); err == nil {
					walk(child)
				}
			}
		}
	}
	if pid := m.PID(); pid != 0 {
		walk(pid)
	}
	return out
}

// PowerOff ends every process of the machine at once, and what others send to it gets no answer. Its disk stays. It does nothing when
// the machine is off.
func (m *Machine) PowerOff() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.process == nil {
		return nil
	}
	err := errors.Join(m.network.Cut(m), m.process.Process.Kill())
	// The exit status of a killed process is no news; Wait closes the pipes.
	_ = m.process.Wait()
	m.process = nil
	return err
}

// Command returns a command line of skep that talks to this machine's daemon.
func (m *Machine) Command(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, m.programs.Skep, append([]string{"--host", "unix://" + m.Socket()}, args...)...)
}

// Skep runs a command against this machine's daemon and returns what it printed on standard output.
func (m *Machine) Skep(ctx context.Context, args ...string) (string, error) {
	command := m.Command(ctx, args...)
	var stderr strings.Builder
	command.Stderr = &stderr
	out, err := command.Output()
	if err != nil {
		return string(out), fmt.Errorf("%s: skep %s: %w: %s", m.Name, strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}

// namespace returns the machine's network namespace, or -1 after Close: a client may still be dialling then.
func (m *Machine) namespace() netns.NsHandle {
	m.spaceMu.Lock()
	defer m.spaceMu.Unlock()
	return m.space
}

func (m *Machine) closeNamespace() error {
	m.spaceMu.Lock()
	defer m.spaceMu.Unlock()
	return m.space.Close()
}

// Inside starts a program, such as the command line, in the machine's network.
func (m *Machine) Inside(command *exec.Cmd) error { return within(m.namespace(), command.Start) }

// Dial connects from inside the machine's network namespace.
func (m *Machine) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	var conn net.Conn
	err := within(m.namespace(), func() error {
		var err error
		conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// removeCgroups removes what is left of the machine's cgroups; its processes are gone.
func (m *Machine) removeCgroups() error {
	roots, err := filepath.Glob("/sys/fs/cgroup/*")
	if err != nil {
		return err
	}
	var errs []error
	for _, root := range append(roots, "/sys/fs/cgroup") {
		errs = append(errs, removeTree(filepath.Join(root, m.CgroupParent())))
	}
	return errors.Join(errs...)
}

// removeTree removes a folder of cgroups, the innermost first: cgroupfs takes rmdir only, and only of leaves.
func removeTree(dir string) error {
	var dirs []string
	err := filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			dirs = append(dirs, name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), cgroupPatience)
	defer cancel()
	for i := len(dirs) - 1; i >= 0; i-- {
		if err := removeCgroup(ctx, dirs[i]); err != nil {
			return fmt.Errorf("remove cgroup %s: %w", dirs[i], err)
		}
	}
	return nil
}

// cgroupPatience bounds how long a cgroup may stay busy after its last process: the kernel lets go of it a little later.
const cgroupPatience = 10 * time.Second

// removeCgroup removes one cgroup without children, once the kernel lets go of it.
func removeCgroup(ctx context.Context, dir string) error {
	for {
		err := syscall.Rmdir(dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if !errors.Is(err, syscall.EBUSY) || pause(ctx) != nil {
			return err
		}
	}
}
