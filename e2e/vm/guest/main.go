// Command guest is the first program of a test machine: it makes a usual Linux system of what the kernel left, runs the
// suites, tells how they ended, and powers off. See package vm for what it says.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/e2e/vm/suite"
)

// rootMarker is there once the root disk is the root directory.
const rootMarker = "/etc/skep-guest"

func main() {
	if len(os.Args) == 2 && os.Args[1] == worker {
		if err := work(); err != nil {
			fmt.Fprintln(os.Stderr, "guest:", err)
			os.Exit(1)
		}
		return
	}
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "guest is the first program of a test machine, and runs nowhere else")
		os.Exit(2)
	}
	err := boot()
	if err == nil {
		err = reap()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
	}
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Fprintln(os.Stderr, "guest: power off:", err)
	}
}

// worker is the argument of the process that does the work.
const worker = "work"

// reap starts the worker and, until that ends, waits for every process that has lost its parent, as an init must.
func reap() error {
	p, err := os.StartProcess("/sbin/init", []string{"guest", worker}, &os.ProcAttr{Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}})
	if err != nil {
		return err
	}
	for {
		pid, err := unix.Wait4(-1, nil, 0, nil)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for processes: %w", err)
		}
		if pid == p.Pid {
			return p.Release()
		}
	}
}

// boot finds the root disk and makes it the root. The initial root can't be pivoted away from, which containers do.
func boot() error {
	if _, err := os.Stat(rootMarker); err == nil {
		return nil
	}
	if err := errors.Join(mount("proc", "/proc", "proc", ""), mount("sysfs", "/sys", "sysfs", ""), mount("devtmpfs", "/dev", "devtmpfs", "")); err != nil {
		return err
	}
	if err := errors.Join(modprobe("virtio_pci"), modprobe("virtio_blk"), modprobe("quota_v2")); err != nil {
		return err
	}
	if err := awaitFile("/dev/vda"); err != nil {
		return err
	}
	if err := mount("/dev/vda", "/root", "ext4", "prjquota"); err != nil {
		return err
	}
	for _, dir := range []string{"proc", "sys", "dev"} {
		if err := unix.Mount("/"+dir, "/root/"+dir, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move /%s: %w", dir, err)
		}
	}
	if err := errors.Join(unix.Chdir("/root"), unix.Mount(".", "/", "", unix.MS_MOVE, ""), unix.Chroot("."), unix.Chdir("/")); err != nil {
		return fmt.Errorf("switch root: %w", err)
	}
	return unix.Exec("/sbin/init", []string{"init"}, []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"})
}

func mount(source, target, kind, options string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(source, target, kind, 0, options); err != nil && !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("mount %s at %s: %w", kind, target, err)
	}
	return nil
}

func modprobe(name string, parameters ...string) error {
	if out, err := exec.Command("/bin/busybox", append([]string{"modprobe", name}, parameters...)...).CombinedOutput(); err != nil {
		return fmt.Errorf("load %s: %w: %s", name, err, out)
	}
	return nil
}

// awaitFile waits for a device, which the kernel makes in its own time.
func awaitFile(name string) error {
	for range 1000 {
		if _, err := os.Stat(name); err == nil {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("%s does not appear", name)
}

// work makes the system usable, runs the suites and tells of them on the second serial port.
func work() error {
	port, err := os.OpenFile("/dev/ttyS1", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	defer port.Close()
	if err := raw(port); err != nil {
		return err
	}
	if err := settle(); err != nil {
		return errors.Join(err, suite.Tell(port, suite.Message{Kind: suite.Broken, Text: err.Error()}))
	}
	if err := suite.Tell(port, suite.Message{Kind: suite.Booted, Text: kernel()}); err != nil {
		return err
	}
	text, err := os.ReadFile("/suites.json")
	if err != nil {
		return err
	}
	var all []suite.Suite
	if err := json.Unmarshal(text, &all); err != nil {
		return err
	}
	for _, s := range all {
		if err := run(port, s); err != nil {
			return err
		}
	}
	return suite.Tell(port, suite.Message{Kind: suite.Done})
}

// raw has the port pass bytes as they are.
func raw(port *os.File) error {
	t, err := unix.IoctlGetTermios(int(port.Fd()), unix.TCGETS)
	if err != nil {
		return err
	}
	t.Oflag &^= unix.OPOST
	t.Lflag = 0
	return unix.IoctlSetTermios(int(port.Fd()), unix.TCSETS, t)
}

// settle makes what a booted Debian has: file systems, control groups with their controllers, a loopback interface.
func settle() error {
	for _, m := range [][3]string{
		{"tmpfs", "/run", "mode=755"},
		{"devpts", "/dev/pts", "gid=5,mode=620,ptmxmode=666"},
		{"tmpfs", "/dev/shm", "mode=1777"},
		{"mqueue", "/dev/mqueue", ""},
		{"securityfs", "/sys/kernel/security", ""},
		{"bpf", "/sys/fs/bpf", ""},
		{"cgroup2", "/sys/fs/cgroup", ""},
	} {
		if err := mount(m[0], m[1], m[0], m[2]); err != nil {
			return err
		}
	}
	if err := loadPolicy(); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil { // as systemd does
		return err
	}
	if err := controllers("/sys/fs/cgroup"); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte("guest")); err != nil {
		return err
	}
	if out, err := exec.Command("/bin/busybox", "ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("loopback: %w: %s", err, out)
	}
	return errors.Join(modprobe("overlay"), modprobe("loop", "max_loop=1")) // one block device, for limits
}

// loadPolicy gives SELinux the policy of the machine, if it has one, and has it enforced.
func loadPolicy() error {
	const file, dir = "/etc/selinux/skep/policy", "/sys/fs/selinux"
	policy, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = mount("selinuxfs", dir, "selinuxfs", "")
	}
	if err == nil {
		err = os.WriteFile(dir+"/load", policy, 0)
	}
	if err == nil {
		err = os.WriteFile(dir+"/enforce", []byte("1"), 0)
	}
	if err != nil {
		return fmt.Errorf("SELinux policy: %w", err)
	}
	return nil
}

// controllers moves all processes into a group of their own, as a service manager does, so that the others may have
// controllers; and enables all of those.
func controllers(root string) error {
	own := filepath.Join(root, "init")
	if err := os.Mkdir(own, 0o755); err != nil {
		return err
	}
	pids, err := os.ReadFile(root + "/cgroup.procs")
	if err != nil {
		return err
	}
	for _, pid := range strings.Fields(string(pids)) {
		// Threads of the kernel can't be moved.
		_ = os.WriteFile(own+"/cgroup.procs", []byte(pid), 0)
	}
	have, err := os.ReadFile(root + "/cgroup.controllers")
	if err != nil {
		return err
	}
	for _, c := range strings.Fields(string(have)) {
		if err := os.WriteFile(root+"/cgroup.subtree_control", []byte("+"+c), 0); err != nil {
			return fmt.Errorf("enable controller %s: %w", c, err)
		}
	}
	return nil
}

// kernel describes what the machine runs.
func kernel() string {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return err.Error()
	}
	lsm, _ := os.ReadFile("/sys/kernel/security/lsm")
	return unix.ByteSliceToString(name.Release[:]) + ", " + strings.TrimSpace(string(lsm))
}

// run runs one suite and passes on what it says.
func run(port *os.File, s suite.Suite) error {
	if err := suite.Tell(port, suite.Message{Kind: suite.Begin, Suite: s.Name}); err != nil {
		return err
	}
	started := time.Now()
	cmd := exec.Command(s.Program, s.Args...)
	cmd.Dir, cmd.Env = s.Dir, append(os.Environ(), s.Env...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		return errors.Join(err, suite.Tell(port, suite.Message{Kind: suite.End, Suite: s.Name, Code: 127, Text: err.Error()}))
	}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, suite.MaxLine)
	for lines.Scan() {
		if err := suite.Tell(port, suite.Message{Kind: suite.Output, Suite: s.Name, Text: lines.Text()}); err != nil {
			return err
		}
	}
	err = cmd.Wait()
	end := suite.Message{Kind: suite.End, Suite: s.Name, Code: cmd.ProcessState.ExitCode(), Seconds: time.Since(started).Seconds()}
	if err != nil {
		end.Text = err.Error()
	}
	return suite.Tell(port, end)
}
