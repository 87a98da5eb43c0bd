package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skep-io/skep/runtime/spec"
)

// inventory is a script that says, in sections, all that a program can see of how it is isolated.
const inventory = `
section() { echo "== $1"; }
section status; while read k v; do case $k in
	Uid:|Gid:|Groups:|Umask:|CapInh:|CapPrm:|CapEff:|CapBnd:|CapAmb:|NoNewPrivs:|Seccomp:|Seccomp_filters:|SigBlk:|SigIgn:) echo $k $v;;
esac; done </proc/self/status
section ids; cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups
section mounts; cat /proc/self/mountinfo
section descriptors; for f in /proc/$$/fd/*; do echo ${f##*/} $(readlink $f); done
section cgroups; cat /proc/self/cgroup
section namespaces; for n in /proc/self/ns/*; do echo ${n##*/} $(readlink $n); done
section hostname; hostname
section ipc; cat /proc/sysvipc/shm; cat /proc/sys/kernel/shmmax; ls /dev/mqueue
section limits; cat /proc/self/limits
section environment; env
section directory; pwd; stat -c '%A %u:%g' .
section devices; stat -c '%n %A %u:%g %t:%T' /dev/* /dev; for l in /dev/*; do [ ! -L $l ] || echo $l $(readlink $l); done
section network; ls /sys/class/net /proc/sys/net/ipv4/conf; cat /sys/class/net/lo/flags
section sysctls; cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/ping_group_range
section score; cat /proc/self/oom_score_adj
section session; while read pid name state parent group session terminal rest; do echo $pid $parent $group $session $terminal; done </proc/1/stat
section masked; for p in $MASKED; do [ ! -e $p ] || echo $p $(stat -c '%F %A %s' $p) $(cat $p 2>/dev/null | wc -c); done
section writable; for p in / /dev /proc/sys/kernel/shmmax /proc/bus /sys /sys/fs/cgroup /tmp /data /proc/1/oom_score_adj; do
	[ ! -w $p ] || echo $p; done
section end`

// differ is a kind of container that both runtimes are to make alike.
func differ(t *testing.T) map[string]func(*specs.Spec) {
	profile, err := spec.Default()
	if err != nil {
		t.Fatal(err)
	}
	caps := profile.Process.Capabilities
	engine := func(s *specs.Spec) { // what Docker asks for
		s.Hostname = "inside"
		s.Process.Capabilities = caps
		s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 100, Hard: 200}, {Type: "RLIMIT_CORE", Soft: 0, Hard: 0}}
		s.Mounts = append(
			slices.Clone(profile.Mounts),
			specs.Mount{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "size=1m"}},
			specs.Mount{Destination: "/data", Type: "bind", Source: t.TempDir(), Options: []string{"rbind", "rprivate", "ro", "nosuid"}},
			specs.Mount{Destination: "/file", Type: "bind", Source: "/etc/hostname", Options: []string{"bind"}},
		)
		for _, n := range []specs.LinuxNamespaceType{specs.IPCNamespace, specs.UTSNamespace} {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: n})
		}
		s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = profile.Linux.MaskedPaths, profile.Linux.ReadonlyPaths
		s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"}
		s.Linux.Seccomp = profile.Linux.Seccomp
		score := 100
		s.Process.OOMScoreAdj = &score
	}
	return map[string]func(*specs.Spec){
		"little": func(*specs.Spec) {},
		"engine": engine,
		"user": func(s *specs.Spec) {
			engine(s)
			umask := uint32(0o027)
			s.Process.User = specs.User{UID: 1000, GID: 1001, AdditionalGids: []uint32{5, 6}, Umask: &umask}
			s.Process.NoNewPrivileges = true
			s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps.Bounding[:3]}
			s.Process.Cwd = "/tmp"
			s.Root.Readonly = true
		},
		"ambient": func(s *specs.Spec) {
			engine(s)
			s.Process.User = specs.User{UID: 1000}
			own := caps.Bounding[:2]
			s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: own, Permitted: own, Effective: own, Inheritable: own, Ambient: own}
		},
		"user namespace": func(s *specs.Spec) {
			engine(s)
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
			ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 200000, Size: 65536}}
			s.Linux.UIDMappings, s.Linux.GIDMappings = ids, ids
		},
		"all namespaces": func(s *specs.Spec) {
			engine(s)
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
		},
		"device": func(s *specs.Spec) {
			engine(s)
			mode := os.FileMode(0o640)
			gid := uint32(7)
			s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/own", Type: "c", Major: 1, Minor: 3, FileMode: &mode, GID: &gid}}
			s.Linux.RootfsPropagation = "rslave"
		},
	}
}

// TestOCI_MakesTheContainersThatRuncMakes compares what programs see in containers of runc and of this runtime, for the
// same bundles. testdata/differences.txt lists what may differ, and why; what it lists has to differ.
func TestOCI_MakesTheContainersThatRuncMakes(t *testing.T) {
	runc, err := exec.LookPath("runc")
	if err != nil {
		t.Skipf("needs runc to compare with: %v", err)
	}
	known := readDifferences(t)
	for name, edit := range differ(t) {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t)
			e.prepareInventory()
			e.configure(inventory, func(s *specs.Spec) {
				edit(s)
				s.Process.Env = append(s.Process.Env, "MASKED="+strings.Join(s.Linux.MaskedPaths, " "))
			})
			theirs, ours := e.see(runc), e.see(e.path)
			for _, d := range difference(theirs, ours) {
				if !known.explain(d) {
					t.Errorf("not explained: %s", d)
				}
			}
		})
	}
	if !t.Failed() {
		known.checkUsed(t)
	}
}

// prepareInventory adds to the root what the script needs.
func (e *engine) prepareInventory() {
	e.t.Helper()
	// The owner of a user namespace has to reach the bundle, and may make no directories in it.
	if err := os.Chmod(filepath.Dir(e.bundle), 0o711); err != nil {
		e.t.Fatal(err)
	}
	root := filepath.Join(e.bundle, "rootfs")
	for _, dir := range []string{"proc", "dev", "sys", "tmp", "data"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			e.t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "file"), nil, 0o644); err != nil {
		e.t.Fatal(err)
	}
	for _, name := range []string{"stat", "wc"} {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", name)); err != nil {
			e.t.Fatal(err)
		}
	}
}

// see runs the bundle by a runtime and gives the sections of what the program saw.
func (e *engine) see(runtime string) map[string][]string {
	e.t.Helper()
	cmd := exec.Command(runtime, "--root", filepath.Join(e.t.TempDir(), "root"), "run", "c")
	var out, errs bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr = e.bundle, &out, &errs
	if err := cmd.Run(); err != nil {
		e.t.Fatalf("%s: %v: %s%s", runtime, err, out.String(), errs.String())
	}
	sections, name := make(map[string][]string), ""
	for line := range strings.Lines(out.String()) {
		line = strings.TrimSpace(line)
		if s, ok := strings.CutPrefix(line, "== "); ok {
			name = s
			continue
		}
		sections[name] = append(sections[name], e.normal(name, line))
	}
	if name != "end" {
		e.t.Fatalf("%s: incomplete: %s%s", runtime, out.String(), errs.String())
	}
	for name, lines := range sections { // some more that nobody promises the order of
		if name != "descriptors" {
			slices.Sort(lines)
		}
	}
	return sections
}

// normal takes out of a line what differs from one container to the next.
func (e *engine) normal(section, line string) string {
	line = strings.ReplaceAll(line, e.bundle, "BUNDLE")
	switch section {
	case "mounts": // the ids, the number of the file system, and the groups of propagation
		fields := strings.Fields(line)
		line = strings.Join(fields[3:], " ")
		return regexp.MustCompile(`(shared|master|propagate_from):\d+`).ReplaceAllString(line, "$1")
	case "descriptors":
		return regexp.MustCompile(`pipe:\[\d+\]`).ReplaceAllString(line, "pipe")
	case "namespaces":
		kind, id, _ := strings.Cut(line, " ")
		if host, err := os.Readlink("/proc/self/ns/" + kind); err == nil && host == id {
			return kind + " of the host"
		}
		return kind + " of its own"
	}
	return line
}

// difference gives the lines that only one of them saw: "SECTION runc|skep LINE".
func difference(theirs, ours map[string][]string) []string {
	var out []string
	only := func(who string, a, b map[string][]string) {
		for section, lines := range a {
			left := slices.Clone(b[section])
			for _, line := range lines {
				if i := slices.Index(left, line); i >= 0 {
					left = slices.Delete(left, i, i+1)
					continue
				}
				out = append(out, fmt.Sprintf("%s %s %s", section, who, line))
			}
		}
	}
	only("runc", theirs, ours)
	only("skep", ours, theirs)
	slices.Sort(out)
	return out
}

// differences are those that are expected, and which of them were seen or need not be.
type differences struct {
	patterns []*regexp.Regexp
	used     []bool
}

func readDifferences(t *testing.T) *differences {
	t.Helper()
	f, err := os.Open("testdata/differences.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d := &differences{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if line := strings.TrimSpace(lines.Text()); line != "" && !strings.HasPrefix(line, "#") {
			line, some := strings.CutPrefix(line, "? ")
			p, err := regexp.Compile("^" + line + "$")
			if err != nil {
				t.Fatal(err)
			}
			d.patterns, d.used = append(d.patterns, p), append(d.used, some)
		}
	}
	return d
}

func (d *differences) explain(line string) bool {
	for i, p := range d.patterns {
		if p.MatchString(line) {
			d.used[i] = true
			return true
		}
	}
	return false
}

func (d *differences) checkUsed(t *testing.T) {
	t.Helper()
	for i, p := range d.patterns {
		if !d.used[i] {
			t.Errorf("testdata/differences.txt lists %s, which does not differ", p)
		}
	}
}
