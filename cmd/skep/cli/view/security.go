package view

import (
	"strings"

	"github.com/skep-io/skep/api"
)

// ServiceSecurity is how far a service's containers are from the default one.
type ServiceSecurity struct {
	ServiceID   string
	ServiceName string
	Score       uint32
	Grants      []string
	Differences []SecurityDifference
}

// SecurityDifference is one way in which a container is not the default one.
type SecurityDifference struct {
	What     string
	Why      string
	Grant    string `json:",omitempty"`
	Stricter bool   `json:",omitempty"`
	Points   uint32 `json:",omitempty"`
}

// NewServiceSecurity shows what managers found.
func NewServiceSecurity(r *api.GetServiceSecurityResponse) ServiceSecurity {
	out := ServiceSecurity{
		ServiceID: r.GetServiceId(), ServiceName: r.GetServiceName(), Score: r.GetScore(),
		Grants: append([]string{}, r.GetGrants()...), Differences: []SecurityDifference{},
	}
	for _, d := range r.GetDifferences() {
		out.Differences = append(out.Differences, SecurityDifference{
			What: d.GetWhat(), Why: d.GetWhy(), Grant: d.GetGrant(), Stricter: d.GetStricter(), Points: d.GetPoints(),
		})
	}
	return out
}

// SecurityCheck is one recommendation, and how far it is followed.
type SecurityCheck struct {
	ID       string
	Title    string
	Result   string
	Reason   string
	Services []string `json:",omitempty"`
}

// NewSecurityCheck shows a check.
func NewSecurityCheck(c *api.SecurityCheck) SecurityCheck {
	result := strings.ToLower(strings.TrimPrefix(c.GetResult().String(), "CHECK_RESULT_"))
	return SecurityCheck{
		ID: c.GetId(), Title: c.GetTitle(), Result: strings.ReplaceAll(result, "_", " "), Reason: c.GetReason(), Services: c.GetServices(),
	}
}
