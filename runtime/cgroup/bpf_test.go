package cgroup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// attempt is what a process tries with a device.
type attempt struct {
	device     byte // 'c' or 'b'
	major      int64
	minor      int64
	access     string
	permission bool
}

// Each access is decided by the last rule about it, whatever other rules are about the same device.
func TestDeviceProgram_TheLastRuleDecides(t *testing.T) {
	everyC := DeviceRule{Allow: true, Type: 'c', Major: AnyDevice, Minor: AnyDevice, Access: "m"}
	for name, tc := range map[string]struct {
		rules    []DeviceRule
		attempts []attempt
	}{
		"nothing": {nil, []attempt{{'c', 1, 3, "r", false}, {'b', 8, 0, "m", false}}},
		"stock": {stockDevices("rw"), []attempt{
			{'c', 1, 3, "rw", true}, {'c', 1, 3, "m", false}, {'c', 1, 4, "r", false}, {'b', 1, 3, "r", false}, {'c', 136, 77, "rw", true},
		}},
		"nodes": {NodeDevices(), []attempt{{'c', 10, 229, "m", true}, {'c', 10, 229, "rw", false}, {'b', 8, 0, "m", true}, {'b', 8, 0, "r", false}}},
		"all":   {[]DeviceRule{{Allow: true, Type: 'a', Access: "rwm"}}, []attempt{{'b', 8, 0, "rwm", true}}},
		"hole": {[]DeviceRule{{Allow: true, Type: 'a'}, {Type: 'b', Major: 8, Minor: AnyDevice, Access: "w"}}, []attempt{
			{'b', 8, 1, "r", true}, {'b', 8, 1, "rw", false}, {'b', 9, 1, "rw", true}, {'c', 8, 1, "w", true},
		}},
		"closed again": {[]DeviceRule{{Allow: true, Type: 'a'}, {Type: 'a'}, everyC}, []attempt{{'c', 1, 3, "m", true}, {'c', 1, 3, "r", false}}},
		"in parts": {
			[]DeviceRule{{Allow: true, Type: 'c', Major: 5, Minor: 1, Access: "r"}, {Allow: true, Type: 'c', Major: 5, Minor: AnyDevice, Access: "w"}},
			[]attempt{{'c', 5, 1, "rw", true}, {'c', 5, 2, "rw", false}, {'c', 5, 2, "w", true}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			program, err := deviceProgram(tc.rules)
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range tc.attempts {
				if got := run(t, program, a); got != a.permission {
					t.Errorf("%c %d:%d %s: allowed is %v, want %v", a.device, a.major, a.minor, a.access, got, a.permission)
				}
			}
		})
	}
	for _, r := range []DeviceRule{{Type: 'x'}, {Type: 'c', Access: "rx"}, {Type: 'b', Major: -2}, {Type: 'b', Major: 1 << 31}} {
		if _, err := deviceProgram([]DeviceRule{r}); !errors.Is(err, errDeviceRule) {
			t.Errorf("%+v: error %v, want errDeviceRule", r, err)
		}
	}
}

// run interprets a program.
func run(t *testing.T, program []instruction, a attempt) bool {
	t.Helper()
	rule := DeviceRule{Type: a.device, Access: a.access}
	bits, err := rule.access()
	if err != nil {
		t.Fatal(err)
	}
	kind := int64(unix.BPF_DEVCG_DEV_CHAR)
	if a.device == 'b' {
		kind = unix.BPF_DEVCG_DEV_BLOCK
	}
	memory := map[int16]int64{ctxAccessType: int64(bits)<<16 | kind, ctxMajor: a.major, ctxMinor: a.minor}
	var r [16]int64
	for at, steps := 0, 0; at < len(program); at, steps = at+1, steps+1 {
		i := program[at]
		to, from, k := i.registers&15, i.registers>>4, int64(i.immediate)
		switch i.op {
		case opLoadWord:
			r[to] = memory[i.offset]
		case opMove:
			r[to] = k
		case opCopy:
			r[to] = r[from]
		case opAnd:
			r[to] &= k
		case opShiftRight:
			r[to] = int64(uint64(r[to]) >> k)
		case opJump:
			at += int(i.offset)
		case opJumpNot:
			if r[to] != k {
				at += int(i.offset)
			}
		case opJumpAny:
			if r[to]&k != 0 {
				at += int(i.offset)
			}
		case opExit:
			return r[regResult] == 1
		default:
			t.Fatalf("unknown operation %#x", i.op)
		}
	}
	t.Fatal("the program has no end")
	return false
}

// unifiedTree opens a parent group in the machine's v2 hierarchy, which may have no controllers.
func unifiedTree(t *testing.T) *Tree {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to create control groups")
	}
	root := "/sys/fs/cgroup/unified"
	if _, err := os.Stat(root); err != nil {
		root = "/sys/fs/cgroup"
	}
	if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err != nil {
		t.Skipf("needs a cgroup2 mount at %s: %v", root, err)
	}
	tr, err := OpenUnified(filepath.Join(root, fmt.Sprintf("skep-cgroup-bpf-test-%d", os.Getpid())))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tr.Remove(); err != nil {
			t.Error(err)
		}
	})
	return tr
}

// On v2, root without any other wall around it opens and makes no device but those of every container.
func TestGroup_UnifiedGuardsDevices(t *testing.T) {
	tr := unifiedTree(t)
	disk := filepath.Join(t.TempDir(), "disk")
	if err := unix.Mknod(disk, unix.S_IFBLK|0o600, int(unix.Mkdev(7, 0))); err != nil {
		t.Skipf("needs to make a device node: %v", err)
	}
	made := filepath.Join(t.TempDir(), "made")
	loop := DeviceRule{Allow: true, Type: 'b', Major: 7, Minor: 0, Access: "r"}
	for _, tc := range []struct {
		name    string
		devices []DeviceRule
		script  string
		denied  bool
	}{
		{"null", nil, ": <>/dev/null", false},
		{"zero", nil, "head -c 1 /dev/zero >/dev/null", false},
		{"kmsg", nil, ": </dev/kmsg", true},
		{"disk", nil, ": <" + disk, true},
		{"node", nil, "mknod " + made + " c 1 3", true},
		{"granted", append(stockDevices("rw"), loop), ": <" + disk, false},
		{"granted for reading", append(stockDevices("rw"), loop), ": <>" + disk, true},
		{"granted nodes", NodeDevices(), "mknod " + made + " c 1 3", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := create(t, tr, "devices", Limits{Devices: tc.devices})
			cmd := exec.CommandContext(t.Context(), "sh", "-c", tc.script)
			cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: g.FD()}
			var out bytes.Buffer
			cmd.Stderr = &out
			err := cmd.Run()
			denied := strings.Contains(out.String(), "Operation not permitted")
			if denied != tc.denied || (err == nil) == tc.denied {
				t.Errorf("%s: %v, %s; want denied %v", tc.script, err, &out, tc.denied)
			}
			g.Close()
			if err := g.Remove(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
}
