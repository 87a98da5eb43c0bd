package constraint_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/constraint"
)

func node() *api.Node {
	return &api.Node{
		Id:   "n1",
		Role: api.Role_ROLE_WORKER,
		Spec: &api.NodeSpec{Annotations: &api.Annotations{Labels: map[string]string{"Rack": "A", "empty": "", "disks": "4", "odd": "-inf"}}},
		Description: &api.NodeDescription{
			Hostname: "Host-1", Platform: &api.Platform{Os: "linux", Architecture: "amd64"},
			EngineLabels: map[string]string{"ssd": "yes"},
		},
		Status: &api.NodeStatus{Address: "10.1.2.3:4567"},
	}
}

func TestMatch(t *testing.T) {
	for _, tt := range []struct {
		expression string
		want       bool
	}{
		{"node.id==n1", true},
		{"node.id != n1", false},
		{"node.hostname==host-1", true},
		{"NODE.HOSTNAME==other", false},
		{"node.role==worker", true},
		{"node.role==manager", false},
		{"node.role!=manager", true},
		{"node.platform.os==Linux", true},
		{"node.platform.arch==x86_64", true},
		{"node.platform.arch==aarch64", false},
		{"node.ip==10.1.2.3", true},
		{"node.ip==10.0.0.0/8", true},
		{"node.ip!=10.0.0.0/8", false},
		{"node.ip==fd00::/8", false},
		{"node.labels.Rack==a", true},
		{"node.labels.rack==a", false},
		{"node.labels.rack!=a", true},
		{"node.labels.Rack!=b", true},
		{"engine.labels.ssd==yes", true},
		{"engine.labels.hdd==yes", false},
		{"node.labels.Rack==.*", false},
		{"node.labels.Rack in (c, a)", true},
		{"node.labels.Rack IN(b)", false},
		{"node.labels.Rack not in (b,c)", true},
		{"node.labels.Rack not in (b,a)", false},
		{"node.labels.none in (a)", false},
		{"node.labels.none not in (a)", true},
		{"node.role in (manager,worker)", true},
		{"node.ip in (10.2.0.0/16, 10.1.0.0/16)", true},
		{"node.ip not in (10.2.0.0/16)", true},
		{"node.platform.arch in (aarch64,x86_64)", true},
		{"node.labels.Rack exists", true},
		{"node.labels.empty exists", true},
		{"node.labels.rack exists", false},
		{"node.labels.rack not exists", true},
		{"engine.labels.ssd Not Exists", false},
		{"node.labels.disks > 3", true},
		{"node.labels.disks>4", false},
		{"node.labels.disks<4.5", true},
		{"node.labels.disks < -1", false},
		{"node.labels.Rack>1", false},
		{"node.labels.Rack<1", false},
		{"node.labels.none<1", false},
		{"node.labels.odd<1", false},
		{"engine.labels.ssd==yes in (no)", false},
	} {
		t.Run(tt.expression, func(t *testing.T) {
			set, err := constraint.Parse([]string{tt.expression})
			if err != nil {
				t.Fatal(err)
			}
			if got := set.Match(node()); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestMatch_AllMustHold(t *testing.T) {
	set, err := constraint.Parse([]string{"node.role==worker", "node.labels.Rack==b"})
	if err != nil {
		t.Fatal(err)
	}
	if set.Match(node()) {
		t.Error("a set matched although its second constraint fails")
	}
	if !constraint.Set(nil).Match(node()) {
		t.Error("the empty set refused a node")
	}
}

func TestParse_SaysWhatIsWrong(t *testing.T) {
	for _, tt := range []struct{ expression, want string }{
		{"", "expected one operator from ==, !="},
		{"node.role=worker", "expected one operator from ==, !="},
		{"node.role==", "value '' is invalid"},
		{"node.role>1", "is no label"},
		{"node.labels.a>b", "is no number"},
		{"node.labels.a>=1", "is no number"},
		{"node.labels.a>1e9", "is no number"},
		{"node.labels.a in ()", "value '' is invalid"},
		{"node.labels.a in (a,)", "value '' is invalid"},
		{"node.labels.a in (a)b", "expected one operator"},
		{"node.labels.a in (a,(b))", "value '(b)' is invalid"},
		{"node.labels.a maybe exists", "expected one operator"},
		{"node.ip in (10.0.0.1, host)", "neither an IP address nor a prefix"},
		{"node.role==a;b", "value 'a;b' is invalid"},
		{"==x", "key '' is invalid"},
		{"node.rolle==worker", "use node.id, node.hostname"},
		{"node.labels.==x", "name of a label"},
		{"node.labels.a b==x", "name of a label"},
		{"node.ip==10.0.0", "neither an IP address nor a prefix"},
		{"node.ip==10.0.0.0/99", "not an IP prefix"},
		{"node.id==" + strings.Repeat("x", 2000), "at most 1024"},
	} {
		t.Run(tt.expression, func(t *testing.T) {
			_, err := constraint.Parse([]string{tt.expression})
			if !errors.Is(err, constraint.ErrInvalid) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an invalid constraint with %q", err, tt.want)
			}
		})
	}
	if _, err := constraint.Parse(make([]string, constraint.MaxConstraints+1)); !errors.Is(err, constraint.ErrInvalid) {
		t.Errorf("too many constraints: got %v", err)
	}
}

func TestParseLabel_RefusesWhatIsNone(t *testing.T) {
	for key, want := range map[string]string{
		"rack":                    "key 'rack' is no label: use node.labels.LABEL or engine.labels.LABEL",
		"node.role":               "key 'node.role' is no label: use node.labels.LABEL or engine.labels.LABEL",
		"node.labels.":            "key 'node.labels.' is invalid: after node.labels. comes the name of a label",
		strings.Repeat("x", 2000): "is too long",
	} {
		if _, err := constraint.ParseLabel(key); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20s: %v, want %s", key, err, want)
		}
	}
	if label, err := constraint.ParseLabel("Engine.Labels.Rack"); err != nil || label.String() != "engine.labels.Rack" {
		t.Errorf("a label: %s, %v", label, err)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"node.role==worker", "node.ip!=10.0.0.0/8", "node.labels.a.b == x y", "a!==b", "==", "node.labels.a not in (b, c)", "node.role exists", "engine.labels.n<-1.5", "engine.labels.x!=\\^$"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, expression string) {
		set, err := constraint.Parse([]string{expression})
		if err != nil {
			if !errors.Is(err, constraint.ErrInvalid) {
				t.Fatalf("%q: %v is not ErrInvalid", expression, err)
			}
			return
		}
		again, err := constraint.Parse([]string{set[0].String()})
		if err != nil {
			t.Fatalf("%q printed as %q, which does not parse: %v", expression, set[0], err)
		}
		if set.Match(node()) != again.Match(node()) {
			t.Fatalf("%q and its printed form %q disagree", expression, set[0])
		}
	})
}
