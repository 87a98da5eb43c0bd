package vm

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/skep-io/skep/e2e/vm/suite"
)

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// ErrMachine is returned when the machine did not get to the end of its suites.
var ErrMachine = errors.New("the machine did not finish")

// Boot runs the machine until it powers itself off, and passes on what it says. What the kernel prints goes to the file
// console. It ends the machine when ctx ends.
func (m *Machine) Boot(ctx context.Context, console string, heard func(suite.Message)) error {
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64",
		// One thread of the emulator for both processors: with one each, a kernel that patches its code may lock up.
		"-accel", "tcg,thread=single", "-smp", "2", "-m", strconv.Itoa(m.cfg.Memory),
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-nic", "none",
		"-kernel", m.vmlinuz, "-initrd", m.initrd,
		"-drive", "file="+m.image+",if=virtio,format=raw,cache=unsafe",
		"-serial", "file:"+console, "-serial", "stdio",
		// An emulated kernel may lock up: then it panics after two minutes, instead of waiting for the end of the test's time.
		"-append", "console=ttyS0 quiet panic=1 oops=panic softlockup_panic=1 watchdog_thresh=60 rdinit=/init "+m.cfg.Append)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // I3
	cmd.WaitDelay = 5 * time.Second
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start qemu: %w", err)
	}
	done, text := listen(bufio.NewScanner(out), heard)
	err = cmd.Wait()
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %w", ErrMachine, context.Cause(ctx))
	case err != nil:
		return fmt.Errorf("%w: %w", ErrMachine, err)
	case !done: // I1
		return fmt.Errorf("%w: %s; see %s", ErrMachine, text, console)
	}
	return nil
}

// listen reads what the machine says to its end, and tells whether that was the end of all suites.
func listen(lines *bufio.Scanner, heard func(suite.Message)) (done bool, text string) {
	text = "it said nothing"
	lines.Buffer(nil, 2*suite.MaxLine)
	for lines.Scan() {
		var m suite.Message
		if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
			text = fmt.Sprintf("it said %.200q", lines.Text())
			continue
		}
		text = "its last word was " + string(m.Kind) + " " + m.Suite + " " + m.Text
		done = done || m.Kind == suite.Done
		heard(m)
	}
	return done, text
}
