package cli_test

import (
	"bytes"
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

// Values that look like the real ones.
const (
	workerToken  = "SKPTKN-1-digest-worker"
	managerToken = "SKPTKN-1-digest-manager"
	unlockKey    = "SKPKEY-1-key"
	managerAddr  = "10.0.0.1:2377"
	imageDigest  = "sha256:4bcff63911fcb4448bd4fdacec207030997caf25e9bea4045fa6c8c44de311d1"
)

func (f *fake) GetInfo(context.Context, *api.GetInfoRequest) (*api.GetInfoResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := &api.GetInfoResponse{
		Version: "1.2.3", Hostname: "m1", DataDir: "/var/lib/skep", Platform: &api.Platform{Os: "linux", Architecture: "amd64"},
		KernelVersion: "6.18.0", Resources: &api.Resources{NanoCpus: 2e9, MemoryBytes: 8 << 30}, State: f.state,
		KeyProtection: "key file beside the data", Security: []string{"seccomp", "userns"}, CgroupVersion: "2", Images: uint32(len(f.images)),
	}
	out.PeopleAddresses = f.people
	if f.state == api.LocalNodeState_LOCAL_NODE_STATE_ACTIVE {
		out.NodeId, out.ClusterId, out.Role = "node1", "cluster1", api.Role_ROLE_MANAGER
		out.AdvertiseAddress, out.Managers, out.Nodes, out.ManagerCount = managerAddr, []string{managerAddr}, uint32(len(f.nodes)), 1
		out.RequiredIsolation = []string{"seccomp"}
		out.DataKeyChangedAt = timestamppb.New(born())
		out.AuditHead = &api.AuditHead{Sequence: 7, Hash: []byte{0xab}}
		out.NodeTransports = []string{"TLS 1.3, X25519MLKEM768"}
		out.CertificateExpiresAt = timestamppb.New(born().Add(90 * 24 * time.Hour))
	}
	return out, nil
}

func (f *fake) InitSwarm(_ context.Context, r *api.InitSwarmRequest) (*api.InitSwarmResponse, error) {
	out := &api.InitSwarmResponse{NodeId: "node1", WorkerToken: workerToken, ManagerAddress: managerAddr}
	return out, f.change(func() error {
		if f.state != api.LocalNodeState_LOCAL_NODE_STATE_INACTIVE {
			return fault.New(fault.Precondition, "this node is already part of a swarm: use 'skep swarm leave' to leave it first")
		}
		if r.GetAutolock() {
			f.unlock, out.UnlockKey = unlockKey, unlockKey
		}
		f.becomeActive()
		return nil
	})
}

func (f *fake) becomeActive() {
	f.state = api.LocalNodeState_LOCAL_NODE_STATE_ACTIVE
	f.cluster = &api.Cluster{
		Id: "cluster1", Meta: f.meta(), Spec: &api.ClusterSpec{},
		RootCa: &api.RootCA{Certificate: []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")},
	}
	f.addNode("node1", "m1", api.Role_ROLE_MANAGER)
}

func (f *fake) addNode(id, hostname string, role api.Role) {
	node := &api.Node{
		Id: id, Meta: f.meta(), Role: role,
		Spec: &api.NodeSpec{DesiredRole: role, Availability: api.Availability_AVAILABILITY_ACTIVE},
		Description: &api.NodeDescription{
			Hostname: hostname, Platform: &api.Platform{Os: "linux", Architecture: "amd64"},
			Resources: &api.Resources{NanoCpus: 2e9, MemoryBytes: 8 << 30}, EngineVersion: "1.2.3",
		},
		Status: &api.NodeStatus{State: api.NodeState_NODE_STATE_READY, Address: "10.0.0.1"},
	}
	if role == api.Role_ROLE_MANAGER {
		node.ManagerStatus = &api.ManagerStatus{
			Address: managerAddr, Leader: true, Reachability: api.Reachability_REACHABILITY_REACHABLE,
		}
	}
	f.nodes[id] = node
}

func (f *fake) JoinSwarm(_ context.Context, r *api.JoinSwarmRequest) (*api.JoinSwarmResponse, error) {
	out := &api.JoinSwarmResponse{NodeId: "node1"}
	return out, f.change(func() error {
		switch r.GetToken() {
		case workerToken:
			out.Role = api.Role_ROLE_WORKER
		case managerToken:
			out.Role = api.Role_ROLE_MANAGER
		case waitingToken:
			return f.wait(out)
		default:
			return fault.New(fault.PermissionDenied, "the join token is wrong or was rotated: 'skep swarm join-token' prints the present one")
		}
		f.state = api.LocalNodeState_LOCAL_NODE_STATE_ACTIVE
		return nil
	})
}

func (f *fake) LeaveSwarm(_ context.Context, r *api.LeaveSwarmRequest) (*api.LeaveSwarmResponse, error) {
	return &api.LeaveSwarmResponse{}, f.change(func() error {
		if !r.GetForce() {
			return fault.New(fault.Precondition, "this node is a manager: demote it first, or use --force")
		}
		f.state = api.LocalNodeState_LOCAL_NODE_STATE_INACTIVE
		return nil
	})
}

func (f *fake) UnlockSwarm(_ context.Context, r *api.UnlockSwarmRequest) (*api.UnlockSwarmResponse, error) {
	return &api.UnlockSwarmResponse{}, f.change(func() error {
		if r.GetUnlockKey() != unlockKey {
			return fault.New(fault.Invalid, "invalid key could not be used to decrypt the encrypted key")
		}
		f.state = api.LocalNodeState_LOCAL_NODE_STATE_ACTIVE
		return nil
	})
}

// RejoinSwarm answers as the states tell: a damaged store whose node key needs a key or not, and one that is well.
func (f *fake) RejoinSwarm(_ context.Context, r *api.RejoinSwarmRequest) (*api.RejoinSwarmResponse, error) {
	out := &api.RejoinSwarmResponse{NodeId: "node1", CaughtUp: !r.GetForce(), FormerStore: "/var/lib/skep/raft.former"}
	return out, f.change(func() error {
		if f.state == api.LocalNodeState_LOCAL_NODE_STATE_ACTIVE && !r.GetForce() {
			return fault.New(fault.Precondition, "the store of this node is not damaged")
		}
		if f.unlock != "" && r.GetUnlockKey() != f.unlock {
			out.NeedsUnlockKey = true
			return nil
		}
		f.becomeActive()
		return nil
	})
}

func (f *fake) GetCluster(context.Context, *api.GetClusterRequest) (*api.GetClusterResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &api.GetClusterResponse{Cluster: f.cluster}, f.ready()
}

func (f *fake) UpdateCluster(_ context.Context, r *api.UpdateClusterRequest) (*api.UpdateClusterResponse, error) {
	out := &api.UpdateClusterResponse{}
	return out, f.change(func() error {
		if r.GetVersion() != f.cluster.GetMeta().GetVersion() {
			return fault.New(fault.Conflict, "update out of sequence")
		}
		if r.GetSpec().GetAutolock() && f.unlock == "" {
			f.unlock, out.UnlockKey = unlockKey, unlockKey
		}
		f.cluster = &api.Cluster{Id: "cluster1", Meta: f.meta(), Spec: r.GetSpec(), RootCa: f.cluster.GetRootCa()}
		out.Cluster = f.cluster
		return nil
	})
}

func (f *fake) GetJoinToken(_ context.Context, r *api.GetJoinTokenRequest) (*api.GetJoinTokenResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	token := workerToken
	if r.GetRole() == api.Role_ROLE_MANAGER {
		token = managerToken
	}
	if r.GetRotate() {
		token += "-new"
	}
	return &api.GetJoinTokenResponse{Token: token, ManagerAddress: managerAddr}, f.ready()
}

func (f *fake) GetUnlockKey(context.Context, *api.GetUnlockKeyRequest) (*api.GetUnlockKeyResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &api.GetUnlockKeyResponse{UnlockKey: f.unlock}, f.ready()
}

func (f *fake) RotateDataKeys(context.Context, *api.RotateDataKeysRequest) (*api.RotateDataKeysResponse, error) {
	out := &api.RotateDataKeysResponse{Generation: 1}
	return out, f.change(func() error {
		for _, node := range f.nodes {
			reachable := node.GetManagerStatus().GetReachability() == api.Reachability_REACHABILITY_REACHABLE
			if reachable && node.GetId() != f.slowManager {
				node.DataKey = &api.DataKeyStatus{Generation: out.GetGeneration(), ChangedAt: timestamppb.New(born())}
			}
		}
		return f.ready()
	})
}

func (f *fake) ListNodes(context.Context, *api.ListNodesRequest) (*api.ListNodesResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := &api.ListNodesResponse{}
	for _, node := range f.nodes {
		if node.GetSpec().GetAvailability() == api.Availability_AVAILABILITY_DRAIN {
			node = proto.CloneOf(node)
			node.Status.Drain = f.drain()
		}
		out.Nodes = append(out.Nodes, node)
	}
	return out, f.ready()
}

func (f *fake) GetNode(_ context.Context, r *api.GetNodeRequest) (*api.GetNodeResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	node, err := lookUp("node", f.nodes, nodeNamed, r.GetNode())
	if err == nil && node.GetSpec().GetAvailability() == api.Availability_AVAILABILITY_DRAIN {
		node = proto.CloneOf(node)
		node.Status.Drain = f.drain()
	}
	return &api.GetNodeResponse{Node: node}, err
}

// drain is how far every drain is: a task less each time that it is asked for.
func (f *fake) drain() *api.DrainProgress {
	left := f.drainLeft
	if left == 0 {
		return &api.DrainProgress{}
	}
	f.drainLeft--
	web := &api.DrainedService{ServiceId: "s1", ServiceName: "web", TasksLeft: left, Held: f.drainHeld}
	return &api.DrainProgress{TasksLeft: left, Services: []*api.DrainedService{web}}
}

func (f *fake) UpdateNode(_ context.Context, r *api.UpdateNodeRequest) (*api.UpdateNodeResponse, error) {
	out := &api.UpdateNodeResponse{}
	return out, f.change(func() error {
		node := f.nodes[r.GetNodeId()]
		if node.GetMeta().GetVersion() != r.GetVersion() {
			return fault.New(fault.Conflict, "update out of sequence")
		}
		f.addNode(node.GetId(), nodeNamed(node), r.GetSpec().GetDesiredRole())
		f.nodes[node.GetId()].Spec = r.GetSpec()
		out.Node, out.Warnings = f.nodes[node.GetId()], f.nodeWarnings
		return nil
	})
}

func (f *fake) RemoveNode(_ context.Context, r *api.RemoveNodeRequest) (*api.RemoveNodeResponse, error) {
	out := &api.RemoveNodeResponse{}
	return out, f.change(func() error {
		node, err := lookUp("node", f.nodes, nodeNamed, r.GetNode())
		if err != nil {
			return err
		}
		if !r.GetForce() {
			return fault.New(fault.Precondition, "node %s is not down and can't be removed: use --force", r.GetNode())
		}
		delete(f.nodes, node.GetId())
		out.NodeId = node.GetId()
		return nil
	})
}

func (f *fake) addImage(refs ...string) *api.ImageInfo {
	image := &api.ImageInfo{
		Digest: imageDigest, ConfigDigest: "sha256:" + string(bytes.Repeat([]byte("c"), 64)), References: refs, SizeBytes: 1234567,
		CreatedAt: timestamppb.New(born()), LoadedAt: timestamppb.New(born()), Platform: &api.Platform{Os: "linux", Architecture: "amd64"},
	}
	f.images = append(f.images, image)
	return image
}

func (f *fake) LoadImage(stream grpc.ClientStreamingServer[api.LoadImageRequest, api.LoadImageResponse]) error {
	var data []byte
	if err := drain(stream.Recv, func(r *api.LoadImageRequest) { data = append(data, r.GetData()...) }); err != nil {
		return err
	}
	if bytes.HasPrefix(data, []byte("garbage")) {
		return fault.New(fault.Invalid, "the archive is no image: it must be a docker-save tar or an OCI layout")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.uploaded = data
	return stream.SendAndClose(&api.LoadImageResponse{Images: []*api.ImageInfo{f.addImage("docker.io/library/app:1")}})
}

func (f *fake) ImportImage(stream grpc.ClientStreamingServer[api.ImportImageRequest, api.ImportImageResponse]) error {
	var data []byte
	reference := ""
	err := drain(stream.Recv, func(r *api.ImportImageRequest) {
		data = append(data, r.GetData()...)
		reference += r.GetReference()
	})
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.uploaded, f.reference = data, reference
	return stream.SendAndClose(&api.ImportImageResponse{Image: f.addImage(reference)})
}

func (f *fake) ListImages(context.Context, *api.ListImagesRequest) (*api.ListImagesResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &api.ListImagesResponse{Images: f.images}, nil
}

func (f *fake) GetImage(_ context.Context, r *api.GetImageRequest) (*api.GetImageResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.images) == 0 {
		return nil, fault.New(fault.NotFound, "no such image: %s", r.GetImage())
	}
	return &api.GetImageResponse{
		Image: f.images[0], Config: []byte(`{"config":{"Cmd":["/app"],"Env":["A=1"]}}`), Layers: []string{"sha256:1"},
	}, nil
}

func (f *fake) RemoveImage(_ context.Context, r *api.RemoveImageRequest) (*api.RemoveImageResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.images) == 0 {
		return nil, fault.New(fault.NotFound, "no such image: %s", r.GetImage())
	}
	image := f.images[0]
	f.images = f.images[1:]
	return &api.RemoveImageResponse{Untagged: image.GetReferences(), Deleted: []string{image.GetDigest()}}, nil
}
