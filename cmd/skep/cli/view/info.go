package view

import (
	"fmt"
	"slices"
	"time"

	"github.com/skep-io/skep/api"
)

// Info is a daemon and its relation to a swarm, in the words of Docker's info where it has them.
type Info struct {
	ServerVersion   string
	Name            string
	OSType          string
	Architecture    string
	KernelVersion   string
	NCPU            int64
	MemTotal        int64
	SkepRootDir     string
	CgroupVersion   string
	SecurityOptions []string
	KeyProtection   string
	// OfflineTasks is the number of tasks whose secrets and configs are on the node's disk, sealed by its own key.
	OfflineTasks uint32 `json:",omitempty"`
	// DataKeyChangedAt is when the key was made that seals this manager's store; nil is unknown.
	DataKeyChangedAt *time.Time `json:",omitempty"`
	Containers       uint32
	Images           uint32
	Warnings         []string
	// PeopleAddresses are where the daemon serves users over TCP.
	PeopleAddresses []string `json:",omitempty"`
	// User and UserRole say as whom the daemon knows the one who asks; empty on the unix socket.
	User     string `json:",omitempty"`
	UserRole string `json:",omitempty"`
	Swarm    SwarmInfo
}

// SwarmInfo is a node's relation to a swarm.
type SwarmInfo struct {
	NodeID           string
	NodeAddr         string
	LocalNodeState   string
	ControlAvailable bool
	Error            string
	RemoteManagers   []string
	// AuditHead is the last entry of the audit log that this node was shown, ENTRY:HASH as `audit verify --head` takes it, or empty.
	AuditHead string
	// NodeTransports are what secures the connections of the moment with other nodes.
	NodeTransports       []string
	Nodes                uint32
	Managers             uint32
	ClusterID            string
	CertificateExpiresAt *time.Time      `json:",omitempty"`
	LastVerifiedBackup   *VerifiedBackup `json:",omitempty"`
	BackupInterval       *time.Duration  `json:",omitempty"`
	// RequiredIsolation is what a node must have to get tasks.
	RequiredIsolation []string `json:",omitempty"`
}

// NotInForce is what of the isolation that a kernel may have a node lacks, of what it reports; nil where it reports nothing.
func NotInForce(isolation []string) (lacks []string) {
	for _, name := range []string{"apparmor", "landlock", "seccomp", "selinux", "userns"} {
		if len(isolation) > 0 && !slices.Contains(isolation, name) {
			lacks = append(lacks, name)
		}
	}
	return lacks
}

// VerifiedBackup names a backup.
type VerifiedBackup struct {
	CreatedAt time.Time
	Index     uint64
}

// nanosPerCPU is the number of billionths in one CPU.
const nanosPerCPU = 1_000_000_000

// NewInfo shows a daemon.
func NewInfo(i *api.GetInfoResponse) Info {
	out := Info{
		ServerVersion: i.GetVersion(), Name: i.GetHostname(), OSType: i.GetPlatform().GetOs(),
		Architecture: i.GetPlatform().GetArchitecture(), KernelVersion: i.GetKernelVersion(),
		NCPU: i.GetResources().GetNanoCpus() / nanosPerCPU, MemTotal: i.GetResources().GetMemoryBytes(),
		SkepRootDir: i.GetDataDir(), CgroupVersion: i.GetCgroupVersion(), SecurityOptions: i.GetSecurity(),
		KeyProtection: i.GetKeyProtection(), OfflineTasks: i.GetOfflineTasks(), Containers: i.GetContainersRunning(), Images: i.GetImages(), Warnings: i.GetWarnings(),
		PeopleAddresses: i.GetPeopleAddresses(), User: i.GetUser(), UserRole: UserRole(i.GetUserRole()),
		Swarm: SwarmInfo{
			NodeID: i.GetNodeId(), NodeAddr: i.GetAdvertiseAddress(), LocalNodeState: LocalNodeState(i.GetState()),
			ControlAvailable: i.GetRole() == api.Role_ROLE_MANAGER && i.GetState() == api.LocalNodeState_LOCAL_NODE_STATE_ACTIVE,
			Error:            i.GetError(), RemoteManagers: i.GetManagers(), Nodes: i.GetNodes(), Managers: i.GetManagerCount(),
			ClusterID: i.GetClusterId(), NodeTransports: i.GetNodeTransports(),
			AuditHead: auditHead(i.GetAuditHead()), RequiredIsolation: i.GetRequiredIsolation(),
		},
	}
	if i.GetCertificateExpiresAt() != nil {
		expires := timeOf(i.GetCertificateExpiresAt())
		out.Swarm.CertificateExpiresAt = &expires
	}
	if i.GetDataKeyChangedAt() != nil {
		changed := timeOf(i.GetDataKeyChangedAt())
		out.DataKeyChangedAt = &changed
	}
	if last := i.GetLastVerifiedBackup(); last != nil {
		out.Swarm.LastVerifiedBackup = &VerifiedBackup{CreatedAt: timeOf(last.GetCreatedAt()), Index: last.GetIndex()}
	}
	out.Swarm.BackupInterval = durationOf(i.GetBackupInterval())
	return out
}

// auditHead returns ENTRY:HASH, or nothing for nil.
func auditHead(h *api.AuditHead) string {
	if h == nil {
		return ""
	}
	return fmt.Sprintf("%d:%x", h.GetSequence(), h.GetHash())
}
