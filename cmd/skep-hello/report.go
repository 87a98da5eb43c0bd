package main

import (
	"cmp"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

const notVisible = "not visible"

// machine is where the report looks: the root directory in production.
type machine struct{ root string }

func (m machine) path(name string) string { return filepath.Join(m.root, name) }

// read returns a small file without the white space around it, or "".
func (m machine) read(name string) string {
	data, err := os.ReadFile(m.path(name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// report returns the whole report. Keys are stable; new ones may appear.
//
//	hostname, args, pid, uid, gid, groups
//	env.SKEP_…                           what the agent tells a task
//	namespace.cgroup … namespace.uts     inode numbers, as in lsns
//	uid_map, gid_map                     "inside outside count", by comma
//	cap_eff, cap_bnd                     hex, then names
//	no_new_privs, seccomp
//	limit.memory, limit.cpu, limit.pids
//	rlimit.nofile, rlimit.core, rlimit.as
//	oom_score_adj
//	sysctl.NAME                          some of the container's own namespaces
//	mount.PATH                           type, options and size of what is mounted beside the kernel's
//	rootfs                               read-only or writable
//	address.eth0                         by comma
//	secret.NAME                          sha256:… mode owner file-system
func report(m machine) string {
	var b strings.Builder
	line := func(key, value string) {
		if value == "" {
			value = notVisible
		}
		fmt.Fprintf(&b, "%s: %s\n", key, value)
	}
	who(m, line)
	namespaces(m, line)
	privileges(m, line)
	memory, cpu, pids := m.limits()
	line("limit.memory", memory)
	line("limit.cpu", cpu)
	line("limit.pids", pids)
	line("rlimit.nofile", rlimit(syscall.RLIMIT_NOFILE))
	line("rlimit.core", rlimit(syscall.RLIMIT_CORE))
	line("rlimit.as", rlimit(syscall.RLIMIT_AS))
	line("oom_score_adj", m.read("proc/self/oom_score_adj"))
	for _, name := range []string{"net.ipv4.ip_unprivileged_port_start", "kernel.msgmax"} {
		line("sysctl."+name, m.read("proc/sys/"+strings.ReplaceAll(name, ".", "/")))
	}
	for _, mount := range m.mounts() {
		line("mount."+mount.path, mount.String())
	}
	line("rootfs", rootfs(m.path("/")))
	line("address.eth0", addresses("eth0"))
	for _, s := range m.secrets() {
		line("secret."+s.name, s.String())
	}
	return b.String()
}

func who(m machine, line func(key, value string)) {
	hostname, _ := os.Hostname()
	line("hostname", hostname)
	line("args", strings.Join(os.Args, " "))
	line("pid", strconv.Itoa(os.Getpid()))
	line("uid", strconv.Itoa(os.Getuid()))
	line("gid", strconv.Itoa(os.Getgid()))
	groups, _ := os.Getgroups()
	line("groups", cmp.Or(strings.Trim(fmt.Sprint(groups), "[]"), "none"))
	env := slices.DeleteFunc(os.Environ(), func(e string) bool { return !strings.HasPrefix(e, "SKEP_") })
	slices.Sort(env)
	for _, e := range env {
		key, value, _ := strings.Cut(e, "=")
		line("env."+key, value)
	}
}

func namespaces(m machine, line func(key, value string)) {
	for _, ns := range []string{"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"} {
		link, _ := os.Readlink(m.path("proc/self/ns/" + ns)) // such as net:[4026531840]
		line("namespace."+ns, strings.Trim(strings.TrimPrefix(link, ns+":"), "[]"))
	}
	for _, key := range []string{"uid_map", "gid_map"} {
		var ranges []string
		for l := range strings.Lines(m.read("proc/self/" + key)) {
			ranges = append(ranges, strings.Join(strings.Fields(l), " "))
		}
		line(key, strings.Join(ranges, ", "))
	}
}

func privileges(m machine, line func(key, value string)) {
	status := map[string]string{}
	for l := range strings.Lines(m.read("proc/self/status")) {
		key, value, _ := strings.Cut(l, ":")
		status[key] = strings.TrimSpace(value)
	}
	line("cap_eff", capabilities(status["CapEff"]))
	line("cap_bnd", capabilities(status["CapBnd"]))
	line("no_new_privs", status["NoNewPrivs"])
	seccomp := status["Seccomp"]
	if mode := map[string]string{"0": "off", "1": "strict", "2": "filter"}[seccomp]; mode != "" {
		seccomp += " (" + mode + ")"
	}
	line("seccomp", seccomp)
}

// capabilityNames are in the order of their numbers; see capabilities(7).
func capabilityNames() []string {
	return []string{
		"chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap",
		"linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner",
		"sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct", "sys_admin", "sys_boot", "sys_nice",
		"sys_resource", "sys_time", "sys_tty_config", "mknod", "lease", "audit_write", "audit_control", "setfcap",
		"mac_override", "mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf",
		"checkpoint_restore",
	}
}

// capabilities returns a set as it is in /proc, and its names.
func capabilities(hex string) string {
	set, err := strconv.ParseUint(hex, 16, 64)
	if err != nil {
		return ""
	}
	var names []string
	known := capabilityNames()
	for n := range 64 {
		switch {
		case set&(1<<n) == 0:
		case n < len(known):
			names = append(names, known[n])
		default:
			names = append(names, strconv.Itoa(n))
		}
	}
	if len(names) == 0 {
		names = []string{"none"}
	}
	return hex + " " + strings.Join(names, ",")
}

func rlimit(resource int) string {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(resource, &l); err != nil {
		return ""
	}
	if l.Max == math.MaxUint64 {
		return "none"
	}
	return strconv.FormatUint(l.Max, 10)
}

func rootfs(path string) string {
	const readOnly = 1 // ST_RDONLY
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil {
		return ""
	}
	if st.Flags&readOnly != 0 {
		return "read-only"
	}
	return "writable"
}

// addresses returns the addresses of a network interface.
func addresses(name string) string {
	iface, err := net.InterfaceByName(name)
	if err != nil {
		return ""
	}
	list, err := iface.Addrs()
	if err != nil {
		return ""
	}
	var words []string
	for _, a := range list {
		words = append(words, a.String())
	}
	return strings.Join(words, ", ")
}
