package cli_test

import (
	"context"

	"github.com/skep-io/skep/api"
)

func (f *fake) GetServiceSecurity(_ context.Context, r *api.GetServiceSecurityRequest) (*api.GetServiceSecurityResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	service, err := lookUp("service", f.services, serviceNamed, r.GetService())
	if err != nil {
		return nil, err
	}
	out := &api.GetServiceSecurityResponse{ServiceId: service.GetId(), ServiceName: serviceNamed(service), Score: 100}
	for _, g := range service.GetSpec().GetTask().GetContainer().GetGrants() {
		out.Score -= 10
		out.Grants = append(out.Grants, g.GetGrantName())
		out.Differences = append(out.Differences,
			&api.SecurityDifference{What: "capability CAP_NET_ADMIN", Why: "changes its own network", Grant: g.GetGrantName(), Points: 10},
			&api.SecurityDifference{What: "read-only root file system", Why: "what gets in can't stay", Stricter: true})
	}
	return out, nil
}

func (f *fake) CheckSecurity(_ context.Context, r *api.CheckSecurityRequest) (*api.CheckSecurityResponse, error) {
	out := &api.CheckSecurityResponse{Tasks: 1, Checks: []*api.SecurityCheck{
		{Id: "5.3", Title: "Capabilities", Result: api.CheckResult_CHECK_RESULT_WARN, Reason: "capability CAP_NET_ADMIN, by grant tun", Services: []string{"web"}},
		{Id: "5.23", Title: "Exec", Result: api.CheckResult_CHECK_RESULT_NOT_APPLICABLE, Reason: "not seen"},
	}}
	if r.GetNode() == "bad" {
		out.Checks[0].Result = api.CheckResult_CHECK_RESULT_FAIL
	}
	return out, nil
}
