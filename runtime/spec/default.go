package spec

import (
	"fmt"

	moby "github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Values of the default configuration.
const (
	// DefaultIDBase is the first host id of the default mapping. The agent gives each container a range of its own.
	DefaultIDBase = 100000
	// DefaultIDs is how many ids a container has: every 16-bit id, which is what images use.
	DefaultIDs = 65536
	// defaultPids stops fork bombs and is far above what services need.
	defaultPids = 4096
	// defaultFiles is high enough for servers; the kernel's own soft limit of 1024 is kept for programs that use
	// select.
	defaultFiles     = 1 << 20
	defaultFilesSoft = 1024
)

// Default gives the configuration that a service gets unless it asks for something else. Callers set the process's
// arguments, environment, user and working directory, the id ranges and the limits; they own the result. It fails
// only if the kernel's version can't be read.
func Default() (*specs.Spec, error) {
	pids := int64(defaultPids)
	caps := defaultCapabilities()
	ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: DefaultIDBase, Size: DefaultIDs}}
	s := &specs.Spec{
		Version: specs.Version,
		Process: &specs.Process{
			Cwd:             "/",
			Env:             []string{"PATH=" + defaultPath},
			NoNewPrivileges: true,
			Capabilities:    &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
			Rlimits: []specs.POSIXRlimit{
				{Type: "RLIMIT_NOFILE", Soft: defaultFilesSoft, Hard: defaultFiles},
				{Type: "RLIMIT_CORE"}, // a core dump may hold secrets
			},
		},
		Root:   &specs.Root{},
		Mounts: defaultMounts(),
		Linux: &specs.Linux{
			UIDMappings: ids,
			GIDMappings: []specs.LinuxIDMapping{ids[0]},
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.UserNamespace},
				{Type: specs.MountNamespace},
				{Type: specs.PIDNamespace},
				{Type: specs.NetworkNamespace},
				{Type: specs.IPCNamespace},
				{Type: specs.UTSNamespace},
				{Type: specs.CgroupNamespace},
			},
			Resources:     &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &pids}},
			MaskedPaths:   maskedPaths(),
			ReadonlyPaths: readOnlyPaths(),
			// A port below 1024 is nobody's privilege in a namespace with one tenant.
			Sysctl: map[string]string{"net.ipv4.ip_unprivileged_port_start": "0"},
		},
	}
	profile, err := moby.GetDefaultProfile(s)
	if err != nil {
		return nil, fmt.Errorf("default seccomp profile: %w", err)
	}
	s.Linux.Seccomp = profile
	return s, nil
}

// defaultCapabilities are Docker's, all within the container's user namespace.
func defaultCapabilities() []string {
	return []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
		"CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL",
		"CAP_AUDIT_WRITE",
	}
}

// maskedPaths leak what happens elsewhere on the host, or reach the hardware.
func maskedPaths() []string {
	return []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap",
		"/sys/firmware",
	}
}

// readOnlyPaths change the host. Those of /proc/pressure everybody may write to: each write makes the kernel watch the
// pressure of the whole machine.
func readOnlyPaths() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/pressure", "/proc/sys", "/proc/sysrq-trigger"}
}

func defaultMounts() []specs.Mount {
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "noexec", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{
			"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5",
		}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{
			"nosuid", "noexec", "nodev", "mode=1777", "size=65536k",
		}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		// Runtimes of languages size themselves by the limits that they find here.
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
	}
}
