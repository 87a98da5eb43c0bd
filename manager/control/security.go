package control

import (
	"context"
	"slices"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/privilege"
	"github.com/skep-io/skep/store"
)

// GetServiceSecurity says in what a service differs from the default container.
func (s *Server) GetServiceSecurity(ctx context.Context, request *api.GetServiceSecurityRequest) (*api.GetServiceSecurityResponse, error) {
	response := new(api.GetServiceSecurityResponse)
	return response, s.view(ctx, func(tx store.ReadTx) error {
		service, err := resolve[*api.Service](tx, request.GetService())
		if err != nil {
			return err
		}
		grants, err := grantsOf(tx, service)
		if err != nil {
			return err
		}
		for _, grant := range grants {
			response.Grants = append(response.Grants, grant.GetSpec().GetAnnotations().GetName())
		}
		response.ServiceId, response.ServiceName = service.GetId(), service.GetSpec().GetAnnotations().GetName()
		response.Differences = privilege.Differences(service.GetSpec().GetTask(), grants)
		response.Score = privilege.Score(response.GetDifferences())
		return nil
	})
}

// CheckSecurity holds the tasks that run, of all nodes or of one, against the CIS Docker Benchmark.
func (s *Server) CheckSecurity(ctx context.Context, request *api.CheckSecurityRequest) (*api.CheckSecurityResponse, error) {
	response := new(api.CheckSecurityResponse)
	return response, s.view(ctx, func(tx store.ReadTx) error {
		var by []store.By
		if request.GetNode() != "" {
			node, err := resolve[*api.Node](tx, request.GetNode())
			if err != nil {
				return err
			}
			by = append(by, store.ByNode(node.GetId()))
		}
		tasks, err := store.List[*api.Task](tx, by...)
		if err != nil {
			return err
		}
		tasks = slices.DeleteFunc(tasks, func(t *api.Task) bool { return t.GetStatus().GetState() != api.TaskState_TASK_STATE_RUNNING })
		nodes, err := store.List[*api.Node](tx)
		if err != nil {
			return err
		}
		isolation := map[string][]string{}
		for _, node := range nodes {
			isolation[node.GetId()] = node.GetDescription().GetIsolation()
		}
		response.Tasks, response.Checks = uint32(len(tasks)), privilege.Benchmark(tasks, isolation)
		return nil
	})
}
