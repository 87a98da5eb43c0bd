package cli_test

import (
	"context"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

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
