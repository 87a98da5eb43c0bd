package volume

import (
	"context"
	"slices"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

// Limits of an answer.
const (
	maxListed = 4 * maxVolumes
	maxUsers  = 8
)

// Server serves the volumes of this node to managers. It is constant once it serves; no field is nil.
type Server struct {
	api.UnimplementedNodeVolumesServer
	Store *Store
	// Tasks and Statuses are those of this node, by id.
	Tasks    func() map[string]*api.Task
	Statuses func() map[string]*api.TaskStatus
	// Mounted returns the names of the volumes that a task mounts here: in its spec they may be templates.
	Mounted func(*api.Task) []string
	// Answer turns an error into a status, for the method that is named.
	Answer func(method string, err error) error
}

// CreateNodeVolume implements api.NodeVolumesServer.
func (s *Server) CreateNodeVolume(ctx context.Context, r *api.CreateNodeVolumeRequest) (*api.CreateNodeVolumeResponse, error) {
	v, err := s.Store.Create(ctx, r.GetName(), r.GetLabels())
	if err != nil {
		return nil, s.Answer("CreateNodeVolume", err)
	}
	return &api.CreateNodeVolumeResponse{Volume: message(v, s.users()[v.Name])}, nil
}

// ListNodeVolumes implements api.NodeVolumesServer.
func (s *Server) ListNodeVolumes(_ context.Context, r *api.ListNodeVolumesRequest) (*api.ListNodeVolumesResponse, error) {
	out, err := s.list(r.GetName())
	return &api.ListNodeVolumesResponse{Volumes: out}, s.Answer("ListNodeVolumes", err)
}

func (s *Server) list(name string) ([]*api.Volume, error) {
	names, err := []string{name}, error(nil)
	if name == "" {
		names, err = s.Store.Names()
	}
	if err != nil {
		return nil, err
	}
	if len(names) > maxListed {
		return nil, fault.New(fault.Exhausted, "it has %d volumes: name one, at most %d are listed", len(names), maxListed)
	}
	users := s.users()
	var out []*api.Volume
	for _, name := range names {
		v, err := s.Store.Get(name)
		switch {
		case fault.KindOf(err) == fault.NotFound:
			continue // it went meanwhile, or there is none
		case err != nil && v.Name == "":
			return nil, err
		}
		out = append(out, message(v, users[name])) // one whose record is damaged is there all the same
	}
	return out, nil
}

// RemoveNodeVolume implements api.NodeVolumesServer.
func (s *Server) RemoveNodeVolume(ctx context.Context, r *api.RemoveNodeVolumeRequest) (*api.RemoveNodeVolumeResponse, error) {
	err := s.Store.Remove(ctx, r.GetName(), func() error {
		if users := s.users()[r.GetName()]; len(users) > 0 {
			return fault.New(fault.Precondition, "volume %s is in use by task %s on this node", r.GetName(), users[0])
		}
		return nil
	})
	return &api.RemoveNodeVolumeResponse{}, s.Answer("RemoveNodeVolume", err)
}

// users returns the tasks that use volumes, by volume: those that have not ended. A task is among them before it gets its volumes.
func (s *Server) users() map[string][]string {
	out := map[string][]string{}
	statuses := s.Statuses()
	for id, task := range s.Tasks() {
		if statuses[id].GetState() > api.TaskState_TASK_STATE_RUNNING {
			continue
		}
		for _, name := range s.Mounted(task) {
			if !slices.Contains(out[name], id) {
				out[name] = append(out[name], id)
			}
		}
	}
	for _, ids := range out {
		slices.Sort(ids)
	}
	return out
}

func message(v Volume, users []string) *api.Volume {
	return &api.Volume{
		Name: v.Name, CreatedAt: timestamppb.New(v.CreatedAt), Labels: v.Labels, Mountpoint: v.Dir, TaskIds: users[:min(len(users), maxUsers)],
	}
}
