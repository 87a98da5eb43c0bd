package control

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/skep-io/skep/api"
)

// Limits of what a service asks for of its process.
const (
	maxID      = 65535 // containers have 16-bit ids
	maxDepth   = 128   // names in a path in the container
	maxGroups  = 1024
	maxSysctls = 64 // the runtime takes 128
	// minOOMScore is above the score of the container supervisor, -999: a service must never be kept at its cost, since it is
	// the parent of all containers of the node.
	minOOMScore = -998
	maxOOMScore = 1000
	minShmSize  = 4096 // bytes: a page
	// minStorageSize leaves room for the directories and mount points of any container.
	minStorageSize = 1 << 20
)

// process checks the flags about the process and its kernel parameters.
func (p *problems) process(at string, c *api.ContainerSpec) {
	if len(c.GetGroups()) > maxGroups {
		p.add(at+".groups", "%d groups are too many: at most %d are allowed", len(c.GetGroups()), maxGroups)
	}
	for i, group := range c.GetGroups() {
		if group == "" || strings.ContainsAny(group, ":,") {
			p.add(fmt.Sprintf("%s.groups[%d]", at, i), "invalid group %q: use a name or a number", clip(group))
		}
		p.id(fmt.Sprintf("%s.groups[%d]", at, i), group)
	}
	p.user(at+".user", c.GetUser())
	if n := c.GetOomScoreAdj(); n < minOOMScore || n > maxOOMScore {
		p.add(at+".oom_score_adj", "invalid OOM score %d: it must be %d to %d; below that, the node would lose the parent of all its "+
			"containers before this one", n, minOOMScore, maxOOMScore)
	}
	if n := c.GetShmSizeBytes(); n < 0 || n > 0 && n < minShmSize {
		p.add(at+".shm_size_bytes", "invalid size of /dev/shm %d: it must be at least %d bytes", n, minShmSize)
	}
	if c.GetPrivileges().GetIpc() == api.NamespaceMode_NAMESPACE_MODE_HOST {
		p.sharedIPC(at, c)
	}
	p.storage(at, c)
	p.health(at+".health", c.GetHealth())
	p.ready(at+".ready", c.GetReady())
	p.sysctls(at+".sysctls", c.GetSysctls())
	p.ulimits(at+".ulimits", c.GetUlimits())
}

// user refuses what no image could make sense of.
func (p *problems) user(at, user string) {
	name, group, _ := strings.Cut(user, ":")
	if strings.Contains(group, ":") {
		p.add(at, "invalid user %q: write NAME or NUMBER, with :GROUP if wanted", clip(user))
		return
	}
	p.id(at, name)
	p.id(at, group)
}

// id refuses the number of a user or group that containers don't have. What begins with no digit is a name, which the image has.
func (p *problems) id(at, id string) {
	if id == "" || id[0] < '0' || id[0] > '9' {
		return
	}
	if n, err := strconv.ParseUint(id, 10, 16); err != nil || id != strconv.FormatUint(n, 10) {
		p.add(at, "invalid id %q: containers have those from 0 to %d", clip(id), maxID)
	}
}

// sharedIPC refuses to change what is the node's.
func (p *problems) sharedIPC(at string, c *api.ContainerSpec) {
	if c.GetShmSizeBytes() != 0 {
		p.add(at+".shm_size_bytes", "/dev/shm is the node's with --ipc host: its size can't be set")
	}
	for _, name := range slices.Sorted(maps.Keys(c.GetSysctls())) {
		if !strings.HasPrefix(name, "net.") {
			p.add(at+".sysctls", "sysctl '%s' is the node's with --ipc host", clip(name))
		}
	}
}

// sharedNetwork refuses to change what is the node's, and what there is only of a network of the container's own.
func (p *problems) sharedNetwork(spec *api.ServiceSpec) {
	if len(spec.GetEndpoint().GetPorts()) > 0 {
		p.add("endpoint.ports", "no port can be published with --network host: those that the program listens on are the node's already")
	}
	if r := spec.GetTask().GetResources().GetNetworkRate(); r.GetInBps()+r.GetOutBps() > 0 {
		p.add("task.resources.network_rate", "can't be held with --network host: the interfaces are the node's")
	}
	for _, name := range slices.Sorted(maps.Keys(spec.GetTask().GetContainer().GetSysctls())) {
		if strings.HasPrefix(name, "net.") {
			p.add("task.container.sysctls", "sysctl '%s' is the node's with --network host", clip(name))
		}
	}
}

// storage checks the bound of what a container may write.
func (p *problems) storage(at string, c *api.ContainerSpec) {
	switch n := c.GetStorageSizeBytes(); {
	case n == 0:
	case n < minStorageSize:
		p.add(at+".storage_size_bytes", "invalid storage size %d: it must be at least 1 MiB, or 0 for no limit", n)
	case c.GetPrivileges().GetUserns() == api.UsernsMode_USERNS_MODE_HOST:
		p.add(at+".storage_size_bytes", "can't be held with --userns host: who has the node's user ids may take files out of the quota")
	}
}

const (
	// maxHealthArgs bounds the words of a health check.
	maxHealthArgs = 256
	// minHealthDuration is Docker's: what is less is a mistake in the unit.
	minHealthDuration = time.Millisecond
)

func (p *problems) health(at string, h *api.HealthConfig) {
	test := h.GetTest()
	switch {
	case len(test) > maxHealthArgs:
		p.add(at+".test", "%d words are too many: at most %d are allowed", len(test), maxHealthArgs)
	case len(test) == 0 || len(test) == 1 && test[0] == "NONE":
	case test[0] == "CMD" && len(test) > 1, test[0] == "CMD-SHELL" && len(test) == 2:
	default:
		p.add(at+".test", "invalid health check: write NONE, CMD and a program, or CMD-SHELL and a command line")
	}
	for _, word := range test {
		if strings.ContainsRune(word, 0) {
			p.add(at+".test", "contains a zero byte")
		}
	}
	for _, d := range []struct {
		name  string
		value *durationpb.Duration
	}{
		{"interval", h.GetInterval()},
		{"timeout", h.GetTimeout()},
		{"start_period", h.GetStartPeriod()},
		{"start_interval", h.GetStartInterval()},
	} {
		p.duration(at+"."+d.name, d.value)
		if got := d.value.AsDuration(); got > 0 && got < minHealthDuration {
			p.add(at+"."+d.name, "cannot be less than %s, got %s", minHealthDuration, got)
		}
	}
}

// minReadyInterval keeps readiness checks, which go on as long as a task runs, from being all that a node does.
const minReadyInterval = time.Second

// ready checks how the readiness of tasks is found out.
func (p *problems) ready(at string, h *api.HealthConfig) {
	if h == nil {
		return
	}
	p.health(at, h)
	if test := h.GetTest(); len(test) == 0 || test[0] == "NONE" {
		p.add(at+".test", "a readiness check needs a command: give one, or leave out the check (--no-ready)")
	}
	for name, d := range map[string]*durationpb.Duration{"interval": h.GetInterval(), "start_interval": h.GetStartInterval()} {
		if d := d.AsDuration(); d > 0 && d < minReadyInterval {
			p.add(at+"."+name, "must be at least %s, got %s: the check is run as long as the task runs", minReadyInterval, d)
		}
	}
}

func (p *problems) sysctls(at string, all map[string]string) {
	if len(all) > maxSysctls {
		p.add(at, "%d sysctls are too many: at most %d are allowed", len(all), maxSysctls)
		return
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		switch value := all[name]; {
		case !namespacedSysctl(name):
			p.add(at, "sysctl '%s' is not one of the container's own namespaces: kernel.msg*, kernel.sem, kernel.shm*, fs.mqueue.* "+
				"and net.* can be set; all others are the node's", clip(name))
		case value == "" || strings.ContainsRune(value, 0):
			p.add(at, "sysctl '%s' has no value: write %s=VALUE", clip(name), clip(name))
		}
	}
}

// namespacedSysctl reports whether a kernel parameter belongs to a namespace of the container; the runtime refuses others, too.
func namespacedSysctl(name string) bool {
	switch name {
	case "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni",
		"kernel.shm_rmid_forced":
		return true
	}
	return (strings.HasPrefix(name, "net.") || strings.HasPrefix(name, "fs.mqueue.")) &&
		!strings.ContainsAny(name, "/\x00") && !strings.Contains(name, "..")
}

// knownUlimits are Docker's, which are the kernel's RLIMIT_ names.
func knownUlimits() []string {
	return []string{
		"core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio", "rttime",
		"sigpending", "stack",
	}
}

func (p *problems) ulimits(at string, limits []*api.Ulimit) {
	taken := map[string]bool{}
	for i, limit := range limits {
		field, name := fmt.Sprintf("%s[%d]", at, i), limit.GetName()
		switch soft, hard := limit.GetSoft(), limit.GetHard(); {
		case !slices.Contains(knownUlimits(), name):
			p.add(field, "invalid ulimit type: %s", clip(name))
		case taken[name]:
			p.add(field, "duplicate ulimit: %s", name)
		case soft < -1 || hard < -1:
			p.add(field, "ulimit %s is negative: write -1 for no limit", name)
		case hard != -1 && (soft > hard || soft == -1):
			p.add(field, "ulimit %s: soft limit %d must be less than or equal to hard limit %d", name, soft, hard)
		case name == "rtprio" && hard != 0:
			p.add(field, "ulimit rtprio: a process with real-time priority takes the processor from the node itself, whatever its "+
				"CPU limit is: services can't have it")
		}
		taken[name] = true
	}
}
