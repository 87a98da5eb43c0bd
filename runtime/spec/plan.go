package spec

import (
	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/cgroup"
	"github.com/skep-io/skep/runtime/seccomp"
)

// Plan is a checked configuration, ready to launch.
type Plan struct {
	// Namespaces are CLONE_NEW flags: those that the container has of its own. It joins those of Join, and shares all
	// others with the launcher.
	Namespaces   uint64
	Join         []Join
	UIDs, GIDs   []IDRange // of the user namespace; empty if it has none of its own
	Hostname     string    // or "" for the host's
	Domainname   string    // or "" for the host's
	ReadOnlyRoot bool
	Mounts       []Mount  // in the order to make them
	Masked       []string // clean relative paths to hide
	ReadOnly     []string // clean relative paths to make read-only
	Sysctls      []Sysctl // sorted by path
	Limits       cgroup.Limits
	OOMScoreAdj  int
	InheritScore bool // keep the launcher's OOM score, OOMScoreAdj is void
	// StockDev says to put the devices and links that every container has into /dev.
	StockDev bool
	Devices  []Device // further ones
	// MakeNodes says to make the devices as nodes. Otherwise they are the host's own.
	MakeNodes bool
	// RootPropagation is of the root mount: an MS_ flag, or 0 for private; with MS_REC for all below it.
	RootPropagation uint64
	Personality     Personality
	Process         Process
	Seccomp         *seccomp.Filter // or nil for none
	// MountLabel is the label of SELinux that the container's file systems have, or "" for what the host's policy gives them.
	MountLabel string
	// Landlock asks for rules that follow from the root and the mounts, where the kernel can.
	Landlock bool
}

// Join is a namespace that others made: one of the CLONE_NEW flags and an absolute path.
type Join struct {
	Kind uint64
	Path string
}

// Device is a device node or a FIFO of the container.
type Device struct {
	Target       string // clean, relative to the root
	Source       string // the same device on the host, for containers that can't make nodes
	Type         uint32 // S_IFCHR, S_IFBLK or S_IFIFO
	Major, Minor uint32
	Mode         uint32 // permissions
	UID, GID     uint32 // inside the container
}

// Personality is an execution domain of personality(2).
type Personality struct {
	Set    bool
	Domain uint32
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
	// Attr and Clear are MOUNT_ATTR_ flags to set and, on a bind mount, to take away; AllAttr and AllClear are for the
	// mounts below it too.
	Attr, Clear, AllAttr, AllClear uint64
	// Propagation is of a bind mount: an MS_ flag, or 0 for private; with MS_REC for all below it. What is below one that is private
	// or a slave is never more than that.
	Propagation uint64
	// Type is a file system to create, or "" for a bind mount of Source. "cgroup" shows the container's own control
	// group, of whichever version. One with Layers shows those.
	Type    string
	Layers  []string // absolute host paths of an image's layers, the topmost first, whose ids are those inside the container; or nil
	Options []Option // of the file system
	// Source is an absolute host path for bind mounts, else what the mount table shows.
	Source string
	// Subdir is a clean relative path of what is shown in place of the whole, or "". Below Source it is reached through no link; in layers it is
	// a directory, and links are the image's.
	Subdir    string
	Recursive bool // with what is mounted below Source
	IDMap     bool // ids on Source are those inside the container
	CopyUp    bool // a new tmpfs begins with what the root file system has at Target; whoever launches a bundle sees to it
	NoLinks   bool // Source is what it names: no link is followed on the way to it
}

// UserNS reports whether the container has a user namespace of its own.
func (p *Plan) UserNS() bool { return p.Namespaces&unix.CLONE_NEWUSER != 0 }

// Writable reports whether something can be written to at, or below, the mount.
func (m Mount) Writable() bool {
	return (m.Attr|m.AllAttr)&unix.MOUNT_ATTR_RDONLY == 0 || m.Recursive && m.AllAttr&unix.MOUNT_ATTR_RDONLY == 0
}

// HostUID gives the host's id for a user of the container.
func (p *Plan) HostUID(id uint32) (uint32, bool) { return p.host(p.UIDs, id) }

// HostGID gives the host's id for a group of the container.
func (p *Plan) HostGID(id uint32) (uint32, bool) { return p.host(p.GIDs, id) }

func (p *Plan) host(ranges []IDRange, id uint32) (uint32, bool) {
	if !p.UserNS() {
		return id, true
	}
	return Host(ranges, id)
}

// Layered reports whether the mount shows layers.
func (m Mount) Layered() bool { return len(m.Layers) > 0 }

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
	AppArmor     string // a profile that the kernel has, or ""
	SELinux      string // a label that the kernel's policy has, or ""
	Rlimits      []Rlimit
	// Terminal gives the process a terminal of the container as its standard streams, of Rows and Columns if not 0.
	Terminal      bool
	Rows, Columns uint16
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
