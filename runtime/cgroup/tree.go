package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Errors of this package.
var (
	// ErrName is returned when a group's name is not one plain path element.
	ErrName = errors.New("not usable as the name of a control group")
	// ErrUnsupported is returned when the machine offers no memory, cpu and pids controllers, or not the one that a limit
	// needs.
	ErrUnsupported = errors.New("no usable control groups on this machine")
	// ErrBusy is returned when processes are left in a group that should go.
	ErrBusy = errors.New("control group still has processes")
)

// hierarchy is one mounted tree of groups.
type hierarchy struct {
	controllers []string // none on v2
	dir         string   // of the parent group
}

// Tree is the parent group of all containers, in each hierarchy. It is constant after Open.
type Tree struct {
	unified bool
	hiers   []hierarchy
	freezer string // the parent group's directory for freezer, which need not be there, or ""
}

// maxName is the length of names in bytes.
const maxName = 128

// ValidName reports whether a control group can have the name: up to 128 letters, digits, "_", "." and "-", the first of which is a
// letter or a digit.
//
// It is no regular expression: those would be a thirtieth of the supervisor, which uses no others.
func ValidName(name string) bool {
	return name != "" && len(name) <= maxName && strings.IndexByte("_.-", name[0]) < 0 && strings.Trim(name, nameBytes) == ""
}

// nameBytes are what names consist of.
const nameBytes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-"

// Open finds the hierarchies of this machine and creates the group parent at their top, if it isn't there.
func Open(parent string) (*Tree, error) {
	if !ValidName(parent) {
		return nil, fmt.Errorf("%w: %q", ErrName, parent)
	}
	return open(parent)
}

func open(parent string) (*Tree, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("find control groups: %w", err)
	}
	defer f.Close()
	unified, legacy, err := mounts(f)
	if err != nil {
		return nil, fmt.Errorf("find control groups: %w", err)
	}
	if unified != "" && hasControllers(unified) {
		return openUnified(unified, parent)
	}
	return openLegacy(legacy, parent)
}

// OpenUnified uses dir, a directory of a v2 hierarchy, as the parent group. It enables no controller, so limits are
// refused unless the caller enabled them.
func OpenUnified(dir string) (*Tree, error) {
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	return &Tree{unified: true, hiers: []hierarchy{{dir: dir}}}, nil
}

// wanted are the v1 controllers that a container is put into. All but the first three may be missing. Each costs every
// launch some time, so there are no more than are used; cpuset only for who asks for it.
func wanted() []string {
	return []string{"memory", "cpu", "pids", "cpuacct", "blkio", "devices", "cpuset"}
}

// freezer is the v1 controller that halts processes. Containers are in it only while they are halted.
const freezer = "freezer"

// maxMountinfo bounds what is read of the mount table; a line is about 100 bytes.
const maxMountinfo = 16 << 20

// mounts reads a mount table: where v2 is mounted, and where each v1 controller is.
func mounts(r io.Reader) (unified string, legacy map[string]string, err error) {
	legacy = make(map[string]string)
	lines := bufio.NewScanner(io.LimitReader(r, maxMountinfo))
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 5 || len(right) < 3 {
			continue
		}
		switch right[0] {
		case "cgroup2":
			if unified == "" {
				unified = left[4]
			}
		case "cgroup":
			for _, option := range strings.Split(right[2], ",") {
				if (option == freezer || slices.Contains(wanted(), option)) && legacy[option] == "" {
					legacy[option] = left[4]
				}
			}
		}
	}
	return unified, legacy, lines.Err()
}

// hasControllers reports whether the v2 hierarchy at dir has what containers need; in hybrid setups it does not.
func hasControllers(dir string) bool {
	return hasController(dir, "memory") && hasController(dir, "pids") && hasController(dir, "cpu")
}

func hasController(dir, name string) bool {
	have, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	return err == nil && slices.Contains(strings.Fields(string(have)), name)
}

func openUnified(root, parent string) (*Tree, error) {
	dir := filepath.Join(root, parent)
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	for _, at := range []string{root, dir} {
		for _, c := range []string{"memory", "cpu", "pids", "io", "cpuset"} {
			optional := c == "io" || c == "cpuset" // Create refuses limits without their controller
			if err := write(at, setting{"cgroup.subtree_control", "+" + c, optional}); err != nil {
				return nil, fmt.Errorf("enable the controller: %w", err)
			}
		}
	}
	return &Tree{unified: true, hiers: []hierarchy{{dir: dir}}}, nil
}

func openLegacy(mounted map[string]string, parent string) (*Tree, error) {
	for _, must := range []string{"memory", "cpu", "pids"} {
		if mounted[must] == "" {
			return nil, fmt.Errorf("%w: the %s controller is not mounted", ErrUnsupported, must)
		}
	}
	t := &Tree{}
	for _, c := range wanted() {
		if mounted[c] == "" {
			continue
		}
		dir := filepath.Join(mounted[c], parent)
		same := slices.IndexFunc(t.hiers, func(h hierarchy) bool { return h.dir == dir })
		if same >= 0 { // mounted together, as cpu and cpuacct often are
			t.hiers[same].controllers = append(t.hiers[same].controllers, c)
			continue
		}
		if err := makeDir(dir); err != nil {
			return nil, err
		}
		t.hiers = append(t.hiers, hierarchy{controllers: []string{c}, dir: dir})
	}
	if mounted[freezer] != "" {
		t.freezer = filepath.Join(mounted[freezer], parent)
	}
	for _, h := range t.hiers {
		if slices.Contains(h.controllers, "cpuset") {
			if err := inheritCPUSet(h.dir); err != nil {
				return nil, err
			}
		}
	}
	return t, nil
}

// Unified reports whether the tree is in the v2 hierarchy.
func (t *Tree) Unified() bool { return t.unified }

// Create makes the group name with its limits in force (I1). It fails with fs.ErrExist if there is one.
func (t *Tree) Create(name string, l Limits) (*Group, error) {
	if !ValidName(name) {
		return nil, fmt.Errorf("%w: %q", ErrName, name)
	}
	if err := t.offers(l); err != nil {
		return nil, fmt.Errorf("create control group %s: %w", name, err)
	}
	hiers := slices.DeleteFunc(slices.Clone(t.hiers), func(h hierarchy) bool { return h.onDemand() && !l.cpuset() })
	g := t.group(name, hiers)
	for i, dir := range g.dirs {
		if err := g.create(dir, hiers[i], l); err != nil {
			g.Close()
			for _, made := range g.dirs[:i] { // I2
				_ = unix.Rmdir(made)
			}
			return nil, fmt.Errorf("create control group %s: %w", name, err)
		}
	}
	return g, nil
}

// onDemand reports whether only containers that need the hierarchy are put into it.
func (h hierarchy) onDemand() bool { return len(h.controllers) == 1 && h.controllers[0] == "cpuset" }

func (l Limits) cpuset() bool { return l.CPUs != "" || l.Mems != "" }

// offers returns ErrUnsupported for a limit whose controller the machine lacks: it would not be in force.
func (t *Tree) offers(l Limits) error {
	for _, need := range []struct {
		limited         bool
		unified, legacy string
	}{
		{l.cpuset(), "cpuset", "cpuset"},
		{len(l.IO) > 0, "io", "blkio"},
	} {
		switch {
		case !need.limited:
		case t.unified && !hasController(t.hiers[0].dir, need.unified):
			return fmt.Errorf("%w: the limit needs the controller %s, which the kernel or the parent group does not offer", ErrUnsupported, need.unified)
		case !t.unified && !slices.ContainsFunc(t.hiers, func(h hierarchy) bool { return slices.Contains(h.controllers, need.legacy) }):
			return fmt.Errorf("%w: the limit needs the controller %s, which is not mounted", ErrUnsupported, need.legacy)
		}
	}
	return nil
}

// Remove removes the parent group itself. It fails if groups are left in it.
func (t *Tree) Remove() error {
	var errs []error
	for _, h := range t.hiers {
		if err := unix.Rmdir(h.dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove %s: %w", h.dir, err))
		}
	}
	if t.freezer != "" {
		if err := unix.Rmdir(t.freezer); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove %s: %w", t.freezer, err))
		}
	}
	return errors.Join(errs...)
}

// Group gives the handle of the group name, whether it is there or not.
func (t *Tree) Group(name string) (*Group, error) {
	if !ValidName(name) {
		return nil, fmt.Errorf("%w: %q", ErrName, name)
	}
	hiers := slices.DeleteFunc(slices.Clone(t.hiers), func(h hierarchy) bool {
		if !h.onDemand() {
			return false
		}
		_, err := os.Stat(filepath.Join(h.dir, name))
		return err != nil
	})
	return t.group(name, hiers), nil
}

func (t *Tree) group(name string, hiers []hierarchy) *Group {
	g := &Group{name: name, unified: t.unified, fd: -1}
	if t.freezer != "" {
		g.freezer = filepath.Join(t.freezer, name)
	}
	for _, h := range hiers {
		dir := filepath.Join(h.dir, name)
		g.dirs = append(g.dirs, dir)
		g.views = append(g.views, View{Controllers: h.controllers, Dir: dir})
		if t.unified || slices.Contains(h.controllers, "memory") {
			g.memory = dir
		}
	}
	return g
}

// inheritCPUSet gives a group of the v1 controller cpuset what its parent has: a new group has no processor and no memory
// node, and takes no process.
func inheritCPUSet(dir string) error {
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		own, err := os.ReadFile(filepath.Join(dir, file))
		if err == nil && strings.TrimSpace(string(own)) != "" {
			continue
		}
		text, err := os.ReadFile(filepath.Join(filepath.Dir(dir), file))
		if err != nil {
			return fmt.Errorf("read the parent's processors: %w", err)
		}
		if err := write(dir, setting{file, strings.TrimSpace(string(text)), false}); err != nil {
			return err
		}
	}
	return nil
}

func makeDir(dir string) error {
	if err := unix.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("create control group %s: %w", dir, err)
	}
	return nil
}

// write applies one setting in dir.
func write(dir string, s setting) error {
	path := filepath.Join(dir, s.file)
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		if s.optional {
			return nil
		}
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte(s.value)); err != nil && !s.optional {
		return fmt.Errorf("write %q to %s: %w", s.value, path, err)
	}
	return nil
}
