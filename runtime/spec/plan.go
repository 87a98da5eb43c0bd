package spec

import (
	"github.com/skep-io/skep/runtime/cgroup"
	"github.com/skep-io/skep/runtime/seccomp"
)

// Plan is a checked configuration, ready to launch.
type Plan struct {
	UIDs, GIDs   []IDRange // of the user namespace, never empty
	Hostname     string    // or "" for the host's
	Domainname   string    // or "" for the host's
	ReadOnlyRoot bool
	Mounts       []Mount  // in the order to make them
	Masked       []string // clean relative paths to hide
	ReadOnly     []string // clean relative paths to make read-only
	Sysctls      []Sysctl // sorted by path
	Limits       cgroup.Limits
	OOMScoreAdj  int
	Process      Process
	Seccomp      *seccomp.Filter // or nil for none
}

// IDRange maps Size ids from Container to Host.
type IDRange struct {
	Container, Host, Size uint32
}

// Mount is one mount of the container, below its root.
type Mount struct {
	// Target is a clean path relative to the root.
	Target string
	// Trusted targets are reached without following any symbolic link: /proc, /dev and /sys, where a link in an
	// image could put a mount that the container relies on elsewhere. Other targets may go through links that stay
	// in the root.
	Trusted bool
	// Attr are MOUNT_ATTR_ flags.
	Attr uint64
	// Type is a file system to create, or "" for a bind mount of Source. "cgroup" shows the container's own control
	// group, of whichever version.
	Type    string
	Options []Option // of the file system
	// Source is an absolute host path, for bind mounts.
	Source    string
	Recursive bool // with what is mounted below Source
	IDMap     bool // ids on Source are those inside the container
}

// Bind reports whether the mount shows a tree of the host.
func (m Mount) Bind() bool { return m.Type == "" }

// Option is a parameter of a file system; Value is "" for a flag.
type Option struct {
	Key, Value string
}

// Sysctl is a kernel parameter of one of the container's namespaces.
type Sysctl struct {
	Path  string // below /proc/sys
	Value string
}

// Rlimit is one resource limit; Resource is an RLIMIT_ number.
type Rlimit struct {
	Resource   int
	Soft, Hard uint64
}

// Process is the container's first process. Ids are those inside the container.
type Process struct {
	Args         []string // Args[0] is the program
	Programs     []string // paths to try for Args[0], in order; never empty
	Env          []string
	Cwd          string // clean, relative to the root, "." for the root itself
	UID, GID     uint32
	Groups       []uint32
	Umask        uint32
	Capabilities Capabilities
	NoNewPrivs   bool
	Rlimits      []Rlimit
}

// Capabilities are bit sets, bit n for capability n.
type Capabilities struct {
	Bounding, Effective, Permitted, Inheritable, Ambient uint64
}

// Host gives the host's id for an id of the container.
func Host(ranges []IDRange, id uint32) (uint32, bool) {
	for _, r := range ranges {
		if id >= r.Container && id-r.Container < r.Size {
			return r.Host + (id - r.Container), true
		}
	}
	return 0, false
}
