package cli_test

import (
	"bytes"
	"context"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

func configNamed(c *api.Config) string { return c.GetSpec().GetAnnotations().GetName() }

func (f *fake) CreateConfig(_ context.Context, r *api.CreateConfigRequest) (*api.CreateConfigResponse, error) {
	out := &api.CreateConfigResponse{}
	return out, f.change(func() error {
		if err := f.ready(); err != nil {
			return err
		}
		name := r.GetSpec().GetAnnotations().GetName()
		if _, err := lookUp("config", f.configs, configNamed, name); err == nil {
			return fault.New(fault.AlreadyExists, "config %s already exists", name)
		}
		out.Config = &api.Config{Id: f.id("config"), Meta: f.meta(), Spec: r.GetSpec()}
		f.configs[out.Config.GetId()] = out.GetConfig()
		return nil
	})
}

func (f *fake) GetConfig(_ context.Context, r *api.GetConfigRequest) (*api.GetConfigResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	config, err := lookUp("config", f.configs, configNamed, r.GetConfig())
	return &api.GetConfigResponse{Config: config}, err
}

func (f *fake) ListConfigs(context.Context, *api.ListConfigsRequest) (*api.ListConfigsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := &api.ListConfigsResponse{}
	for _, id := range slices.Sorted(maps.Keys(f.configs)) {
		config := proto.CloneOf(f.configs[id])
		config.Spec.Data = nil
		out.Configs = append(out.Configs, config)
	}
	return out, f.ready()
}

func (f *fake) RemoveConfig(_ context.Context, r *api.RemoveConfigRequest) (*api.RemoveConfigResponse, error) {
	out := &api.RemoveConfigResponse{}
	return out, f.change(func() error {
		config, err := lookUp("config", f.configs, configNamed, r.GetConfig())
		if err != nil {
			return err
		}
		for _, service := range f.services {
			for _, ref := range service.GetSpec().GetTask().GetContainer().GetConfigs() {
				if ref.GetSecretId() == config.GetId() {
					return fault.New(fault.Precondition, "config '%s' is in use by the following service: %s", configNamed(config), serviceNamed(service))
				}
			}
		}
		out.ConfigId = config.GetId()
		delete(f.configs, config.GetId())
		return nil
	})
}

func (f *fake) UpdateConfig(_ context.Context, r *api.UpdateConfigRequest) (*api.UpdateConfigResponse, error) {
	out := &api.UpdateConfigResponse{}
	return out, f.change(func() error {
		config, err := lookUp("config", f.configs, configNamed, r.GetConfig())
		if err != nil {
			return err
		}
		config = proto.CloneOf(config)
		if data := r.GetChange().GetData(); len(data) > 0 && !bytes.Equal(data, config.GetSpec().GetData()) {
			config.Spec.Data, config.Version = data, max(1, config.GetVersion())+1
			config.Versions = []*api.ValueVersion{
				{Number: config.GetVersion(), CreatedAt: timestamppb.New(born()), Services: []string{"api", "web"}, Nodes: []string{"w1", "w2"}, Tasks: []string{"api.1", "web.1"}},
				{Number: config.GetVersion() - 1, CreatedAt: timestamppb.New(born()), Services: []string{"old"}, Nodes: []string{"w1"}},
			}
			out.Services, out.Rewritten = []string{"api", "web"}, []string{"live"}
		}
		for key, value := range r.GetChange().GetLabelAdd() {
			config.Spec.Annotations.Labels[key] = value
		}
		for _, key := range r.GetChange().GetLabelRemove() {
			delete(config.Spec.Annotations.Labels, key)
		}
		f.configs[config.GetId()], out.Config = config, config
		return nil
	})
}
