package spec

import (
	"fmt"
	"math"
	"path"
	"slices"
	"strings"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// maxProfileName bounds the name of an AppArmor profile; some are paths.
const maxProfileName = 512

func (c *compiler) process(p *specs.Process) {
	c.unsupported(map[string]bool{
		"process.scheduler": p.Scheduler != nil, "process.ioPriority": p.IOPriority != nil,
		"process.execCPUAffinity": p.ExecCPUAffinity != nil,
	})
	out := &c.plan.Process
	out.NoNewPrivs = p.NoNewPrivileges
	out.AppArmor = c.text("process.apparmorProfile", p.ApparmorProfile)
	if len(out.AppArmor) > maxProfileName || strings.ContainsAny(out.AppArmor, " \n") {
		c.bad("process.apparmorProfile", "%.64q is no name of a profile", out.AppArmor)
	}
	out.SELinux = c.label("process.selinuxLabel", p.SelinuxLabel)
	out.Terminal = p.Terminal
	if size := p.ConsoleSize; size != nil {
		out.Rows, out.Columns = uint16(min(size.Height, math.MaxUint16)), uint16(min(size.Width, math.MaxUint16))
	}
	out.Cwd = c.inside("process.cwd", p.Cwd)
	c.user(&p.User)
	c.arguments(p)
	out.Capabilities = c.capabilities(p.Capabilities)
	c.rlimits(p.Rlimits)
	c.plan.InheritScore = c.bundle && p.OOMScoreAdj == nil
	if p.OOMScoreAdj != nil {
		c.plan.OOMScoreAdj = *p.OOMScoreAdj
		if *p.OOMScoreAdj < -998 && !c.bundle || *p.OOMScoreAdj > 1000 { // -999 is the supervisor's
			c.bad("process.oomScoreAdj", "%d is not in -998 to 1000", *p.OOMScoreAdj)
		}
	}
}

// maxLabel bounds a label of SELinux; a level with many categories is long.
const maxLabel = 4095

// label checks the form of a label of SELinux, user:role:type[:level]. The kernel knows which there are.
func (c *compiler) label(field, label string) string {
	if strings.Count(label, ":") < 2 && label != "" || len(label) > maxLabel || strings.ContainsFunc(label, notGraphic) {
		c.bad(field, "%.64q is no label of SELinux: USER:ROLE:TYPE:LEVEL", label)
	}
	return label
}

// notGraphic reports whether a letter is other than the visible ones of ASCII.
func notGraphic(r rune) bool { return r <= ' ' || r > '~' }

func (c *compiler) user(u *specs.User) {
	out := &c.plan.Process
	out.UID, out.GID, out.Umask = u.UID, u.GID, 0o022
	if u.Umask != nil {
		out.Umask = *u.Umask & 0o777
	}
	if !c.mapped(c.plan.UIDs, u.UID) {
		c.bad("process.user.uid", "%d is not mapped in the container", u.UID)
	}
	if len(u.AdditionalGids) > maxGroups {
		c.bad("process.user.additionalGids", "%d groups, at most %d are possible", len(u.AdditionalGids), maxGroups)
		return
	}
	for _, gid := range append([]uint32{u.GID}, u.AdditionalGids...) {
		if !c.mapped(c.plan.GIDs, gid) {
			c.bad("process.user.gid", "%d is not mapped in the container", gid)
		}
	}
	out.Groups = append(out.Groups, u.AdditionalGids...)
}

// mapped reports whether the container knows an id: without a user namespace it knows all.
func (c *compiler) mapped(ranges []IDRange, id uint32) bool {
	_, ok := Host(ranges, id)
	return ok || !c.plan.UserNS()
}

// defaultPath is searched when the environment has no PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func (c *compiler) arguments(p *specs.Process) {
	out := &c.plan.Process
	if len(p.Args) == 0 || p.Args[0] == "" {
		c.bad("process.args", "names no program")
		return
	}
	if len(p.Args) > maxArgs || len(p.Env) > maxArgs {
		c.bad("process.args", "more than %d arguments or variables", maxArgs)
		return
	}
	total, search := 0, defaultPath
	for _, a := range p.Args {
		total += len(c.text("process.args", a))
	}
	for i, e := range p.Env {
		total += len(c.text("process.env", e))
		name, value, ok := strings.Cut(e, "=")
		if !ok || name == "" {
			c.bad(fmt.Sprintf("process.env[%d]", i), "is not of the form NAME=value")
		}
		if name == "PATH" {
			search = value
		}
	}
	if total > maxStrings {
		c.bad("process.args", "%d bytes of arguments and variables, at most %d are possible", total, maxStrings)
	}
	out.Args, out.Env = slices.Clone(p.Args), slices.Clone(p.Env)
	out.Programs = Programs(p.Args[0], search)
}

// maxSearch bounds the places where a program is looked for.
const maxSearch = 64

// Programs gives the paths to try for a program, as a shell would. A relative entry of PATH is skipped: it would
// depend on the working directory.
func Programs(name, search string) []string {
	if strings.Contains(name, "/") {
		return []string{name}
	}
	var out []string
	for _, dir := range strings.Split(search, ":") {
		if path.IsAbs(dir) && len(out) < maxSearch {
			out = append(out, path.Join(dir, name))
		}
	}
	if len(out) == 0 {
		return []string{path.Join("/bin", name)}
	}
	return out
}

// capabilityNames are in the order of their numbers, from linux/capability.h.
const capabilityNames = "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE " +
	"NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE " +
	"SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE " +
	"AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF " +
	"CHECKPOINT_RESTORE"

// CapabilityNames lists the capabilities that a configuration may name, in the order of their numbers.
func CapabilityNames() []string {
	names := strings.Fields(capabilityNames)
	for i, n := range names {
		names[i] = "CAP_" + n
	}
	return names
}

func (c *compiler) capabilities(in *specs.LinuxCapabilities) Capabilities {
	if in == nil {
		return Capabilities{} // none at all
	}
	out := Capabilities{
		Bounding:    c.capabilitySet("bounding", in.Bounding),
		Effective:   c.capabilitySet("effective", in.Effective),
		Permitted:   c.capabilitySet("permitted", in.Permitted),
		Inheritable: c.capabilitySet("inheritable", in.Inheritable),
		Ambient:     c.capabilitySet("ambient", in.Ambient),
	}
	if (out.Permitted|out.Inheritable)&^out.Bounding != 0 { // I5
		c.bad("process.capabilities", "permitted and inheritable must be within bounding")
	}
	if out.Effective&^out.Permitted != 0 {
		c.bad("process.capabilities", "effective must be within permitted")
	}
	if c.bundle { // what the kernel would not raise is in the bundles that engines write
		out.Ambient &= out.Permitted & out.Inheritable
	}
	if out.Ambient&^(out.Permitted&out.Inheritable) != 0 {
		c.bad("process.capabilities", "ambient must be within permitted and inheritable")
	}
	return out
}

func (c *compiler) capabilitySet(set string, names []string) uint64 {
	bits := uint64(0)
	for _, name := range names {
		n := capability(name)
		if n < 0 {
			c.bad("process.capabilities."+set, "unknown capability %.64q", name)
			continue
		}
		bits |= 1 << n
	}
	return bits
}

// capabilities are the numbers of the capabilities by their names.
var capabilities = sync.OnceValue(func() map[string]int {
	numbers := make(map[string]int)
	for n, name := range strings.Fields(capabilityNames) {
		numbers["CAP_"+name] = n
	}
	return numbers
})

// capability gives the number of a capability, or -1.
func capability(name string) int {
	if n, ok := capabilities()[name]; ok {
		return n
	}
	return -1
}

// Resource gives the RLIMIT_ number of a name.
func Resource(name string) (int, bool) {
	n, ok := map[string]int{
		"RLIMIT_AS": unix.RLIMIT_AS, "RLIMIT_CORE": unix.RLIMIT_CORE, "RLIMIT_CPU": unix.RLIMIT_CPU,
		"RLIMIT_DATA": unix.RLIMIT_DATA, "RLIMIT_FSIZE": unix.RLIMIT_FSIZE, "RLIMIT_LOCKS": unix.RLIMIT_LOCKS,
		"RLIMIT_MEMLOCK": unix.RLIMIT_MEMLOCK, "RLIMIT_MSGQUEUE": unix.RLIMIT_MSGQUEUE, "RLIMIT_NICE": unix.RLIMIT_NICE,
		"RLIMIT_NOFILE": unix.RLIMIT_NOFILE, "RLIMIT_NPROC": unix.RLIMIT_NPROC, "RLIMIT_RSS": unix.RLIMIT_RSS,
		"RLIMIT_RTPRIO": unix.RLIMIT_RTPRIO, "RLIMIT_RTTIME": unix.RLIMIT_RTTIME,
		"RLIMIT_SIGPENDING": unix.RLIMIT_SIGPENDING, "RLIMIT_STACK": unix.RLIMIT_STACK,
	}[name]
	return n, ok
}

func (c *compiler) rlimits(list []specs.POSIXRlimit) {
	seen := make(map[int]bool)
	for _, r := range list {
		n, ok := Resource(r.Type)
		if !ok || seen[n] || r.Soft > r.Hard {
			c.bad("process.rlimits", "%.64q is unknown, repeated, or its soft limit is above its hard limit", r.Type)
			continue
		}
		seen[n] = true
		c.plan.Process.Rlimits = append(c.plan.Process.Rlimits, Rlimit{Resource: n, Soft: r.Soft, Hard: r.Hard})
	}
}
