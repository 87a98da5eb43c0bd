package volumebroker

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/internal/volumename"
	"github.com/skep-io/skep/manager/eligible"
	"github.com/skep-io/skep/manager/reach"
	"github.com/skep-io/skep/store"
)

const (
	// listTime bounds what one node may take to list its volumes, and changeTime what it may to make or remove one: the files in it
	// are removed one by one.
	listTime   = 5 * time.Second
	changeTime = 10 * time.Minute
	// maxAsked bounds the connections of one call at a time.
	maxAsked = 32
	// maxAnswer bounds what one node may say, and maxTotal what all may, in bytes (W3).
	maxAnswer = 6 << 20
	maxTotal  = 32 << 20
	// maxTasks and maxPath bound what is passed on of a volume.
	maxTasks = 8
	maxPath  = 4096
)

// ListVolumes implements api.VolumesServer.
func (b *Broker) ListVolumes(ctx context.Context, r *api.ListVolumesRequest) (*api.ListVolumesResponse, error) {
	if r.GetVolume() != "" {
		if err := checkName(r.GetVolume()); err != nil {
			return nil, err
		}
	}
	nodes, err := b.nodes(ctx, r.GetNode())
	if err != nil {
		return nil, err
	}
	var (
		out   api.ListVolumesResponse
		total int
		mu    sync.Mutex // guards out and total
		asked errgroup.Group
	)
	asked.SetLimit(maxAsked)
	for _, node := range nodes {
		asked.Go(func() error {
			volumes, err := b.list(ctx, node, r.GetVolume())
			mu.Lock()
			defer mu.Unlock()
			for _, v := range volumes {
				total += proto.Size(v)
			}
			if total > maxTotal && err == nil {
				volumes, err = nil, errors.New("there are too many volumes for one answer: name a node or a volume")
			}
			out.Volumes = append(out.Volumes, volumes...)
			if err != nil {
				out.Gaps = append(out.Gaps, &api.VolumeGap{NodeId: node.GetId(), NodeHostname: reach.Hostname(node), Reason: err.Error()})
			}
			return nil // a node that does not answer is no reason to leave out others
		})
	}
	_ = asked.Wait() // none returns an error
	slices.SortFunc(out.Volumes, func(a, b *api.Volume) int {
		return cmp.Or(cmp.Compare(a.GetName(), b.GetName()), cmp.Compare(a.GetNodeHostname(), b.GetNodeHostname()), cmp.Compare(a.GetNodeId(), b.GetNodeId()))
	})
	slices.SortFunc(out.Gaps, func(a, b *api.VolumeGap) int { return cmp.Compare(a.GetNodeId(), b.GetNodeId()) })
	return &out, nil
}

// nodes returns one node, or all that can have volumes.
func (b *Broker) nodes(ctx context.Context, key string) ([]*api.Node, error) {
	if key != "" {
		node, err := b.node(ctx, key)
		return []*api.Node{node}, err
	}
	var all []*api.Node
	err := b.view(ctx, func(tx store.ReadTx) (err error) {
		all, err = store.List[*api.Node](tx)
		return err
	})
	return slices.DeleteFunc(all, eligible.ShutOut), err
}

// list asks a node for its volumes.
func (b *Broker) list(ctx context.Context, node *api.Node, name string) ([]*api.Volume, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, listTime, reach.Silent)
	defer cancel()
	conn, err := reach.Connect(ctx, b.cfg.Dial, node)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	answer, err := api.NewNodeVolumesClient(conn).ListNodeVolumes(ctx, &api.ListNodeVolumesRequest{Name: name}, grpc.MaxCallRecvMsgSize(maxAnswer))
	if err != nil {
		return nil, reach.Reason(err, "does not tell of volumes")
	}
	var out []*api.Volume
	for _, v := range answer.GetVolumes() {
		if volumename.Valid(v.GetName()) && (name == "" || v.GetName() == name) {
			out = append(out, of(node, v))
		}
	}
	return out, nil
}

// of is a volume as its node describes it, with what only managers know (W3).
func of(node *api.Node, v *api.Volume) *api.Volume {
	return &api.Volume{
		Name: v.GetName(), CreatedAt: v.GetCreatedAt(), Labels: v.GetLabels(), Mountpoint: fault.Clip(v.GetMountpoint(), maxPath),
		TaskIds: v.GetTaskIds()[:min(len(v.GetTaskIds()), maxTasks)], NodeId: node.GetId(), NodeHostname: reach.Hostname(node),
	}
}

// call calls one node to change something.
func (b *Broker) call(ctx context.Context, node *api.Node, fn func(context.Context, api.NodeVolumesClient) error) error {
	ctx, cancel := context.WithTimeout(ctx, changeTime)
	defer cancel()
	conn, err := reach.Connect(ctx, b.cfg.Dial, node)
	if err != nil {
		return fault.New(fault.Unavailable, "node %s can't be reached: %s", reach.Hostname(node), reach.Why(err))
	}
	defer conn.Close()
	err = fn(ctx, api.NewNodeVolumesClient(conn))
	if status.Code(err) == codes.Unimplemented {
		return fault.New(fault.Precondition, "node %s runs an older version of Skep that can't do this: upgrade it", reach.Hostname(node))
	}
	return fault.FromStatus(err)
}
