package executor

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/runtime/pid1"
	"github.com/skep-io/skep/runtime/spec"
)

// minOOMScore is above the score of the container supervisor, which must outlive every container.
const minOOMScore, maxOOMScore = -998, 1000

// process sets the kernel's parameters and limits of the process.
func (p plan) process(s *specs.Spec) error {
	c := p.container()
	if c.GetInit() {
		s.Process.Args = underInit(s.Process.Args, s.Process.Env)
	}
	s.Process.Terminal = c.GetTty()
	for name, value := range c.GetSysctls() {
		s.Linux.Sysctl[name] = value // the runtime refuses those that are the node's
	}
	if score := int(c.GetOomScoreAdj()); score != 0 {
		if score < minOOMScore || score > maxOOMScore {
			return fault.New(fault.Invalid, "OOM score %d is not within %d to %d", score, minOOMScore, maxOOMScore)
		}
		s.Process.OOMScoreAdj = &score
	}
	if size := c.GetShmSizeBytes(); size > 0 {
		resizeShm(s, size)
	}
	for _, u := range c.GetUlimits() {
		if err := setUlimit(s.Process, u); err != nil {
			return err
		}
	}
	return nil
}

// initPath is where the init is in a container: beside the task's identity, in memory and read-only.
const initPath = "/run/skep/init"

// underInit returns the arguments of an init that runs a program. It tries the paths where the runtime would look.
func underInit(args, env []string) []string {
	search := ""
	for _, e := range env {
		if value, ok := strings.CutPrefix(e, "PATH="); ok {
			search = value
		}
	}
	return slices.Concat([]string{initPath}, spec.Programs(args[0], search), []string{pid1.Separator}, args)
}

// initFiles returns the init of a task that asks for one.
func initFiles(c *api.ContainerSpec) ([]File, error) {
	if !c.GetInit() {
		return nil, nil
	}
	program, err := pid1.Program()
	if err != nil {
		return nil, err
	}
	return []File{{Path: initPath, Data: program, Mode: 0o555, Exec: true}}, nil
}

// resizeShm changes the size of /dev/shm, which the defaults have.
func resizeShm(s *specs.Spec, size int64) {
	for i, m := range s.Mounts {
		if m.Destination != "/dev/shm" {
			continue
		}
		var options []string
		for _, o := range m.Options {
			if !strings.HasPrefix(o, "size=") {
				options = append(options, o)
			}
		}
		s.Mounts[i].Options = append(options, fmt.Sprintf("size=%d", size))
	}
}

// setUlimit sets a resource limit in place of a default one, if there is one.
func setUlimit(process *specs.Process, u *api.Ulimit) error {
	soft, hard := rlimit(u.GetSoft()), rlimit(u.GetHard())
	if u.GetSoft() < -1 || u.GetHard() < -1 || soft > hard {
		return fault.New(fault.Invalid, "ulimit %s=%d:%d: the soft limit must not be above the hard one", u.GetName(), u.GetSoft(), u.GetHard())
	}
	if u.GetName() == "nofile" {
		most, err := mostFiles()
		if err != nil {
			return err
		}
		if u.GetHard() >= 0 && hard > most {
			return fault.New(fault.Invalid, "ulimit nofile=%d:%d: a process of this node can have %d open files (fs.nr_open): raise that, or ask for less",
				u.GetSoft(), u.GetHard(), most)
		}
		soft, hard = min(soft, most), min(hard, most)
	}
	limit := specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(u.GetName()), Soft: soft, Hard: hard}
	for i, present := range process.Rlimits {
		if present.Type == limit.Type {
			process.Rlimits[i] = limit
			return nil
		}
	}
	process.Rlimits = append(process.Rlimits, limit)
	return nil
}

// mostFiles returns the most files that the kernel lets a process have, whatever its rights: nobody can be given no limit of them.
func mostFiles() (uint64, error) {
	text, err := os.ReadFile("/proc/sys/fs/nr_open")
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
}

// rlimit returns a limit as the kernel has it: all ones are none.
func rlimit(n int64) uint64 {
	if n < 0 {
		return math.MaxUint64
	}
	return uint64(n)
}
