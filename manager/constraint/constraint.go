package constraint

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strings"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

// ErrInvalid is returned when an expression is not in the grammar.
var ErrInvalid = errors.New("invalid constraint")

// Limits on what a spec may carry: every node is compared with every constraint of every waiting task.
const (
	// MaxExpression is the largest length of one expression in bytes.
	MaxExpression = 1024
	// MaxConstraints is the largest number of constraints in a set.
	MaxConstraints = 64
)

const (
	nodeLabelPrefix   = "node.labels."
	engineLabelPrefix = "engine.labels."
	keyList           = "node.id, node.hostname, node.ip, node.role, node.platform.os, node.platform.arch, node.labels.LABEL or engine.labels.LABEL"
)

var (
	labelPattern = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_./-]*$`)
	valuePattern = regexp.MustCompile(`^[A-Za-z0-9:\-_\s.*()?+\[\]\\^$|/]+$`)
)

// Set is a list of constraints that must all hold. The empty set holds for every node.
type Set []Constraint

// Constraint is one comparison. The zero value is none; every other comes from [Parse].
type Constraint struct {
	key    string // one of the fixed keys, or a label prefix
	label  string // after a label prefix, in its own case
	equal  bool   // == rather than !=
	value  string
	prefix netip.Prefix // for node.ip
}

// Parse reads expressions in their order. It reports the first that is wrong.
func Parse(expressions []string) (Set, error) {
	if len(expressions) > MaxConstraints {
		return nil, fmt.Errorf("%w: %d of them, at most %d are allowed", ErrInvalid, len(expressions), MaxConstraints)
	}
	var set Set
	for _, expression := range expressions {
		c, err := parse(expression)
		if err != nil {
			return nil, fmt.Errorf("%w %q: %w", ErrInvalid, clip(expression), err)
		}
		set = append(set, c)
	}
	return set, nil
}

// clip keeps an error short when the expression is not.
func clip(s string) string { return fault.Clip(s, 80) }

func parse(expression string) (Constraint, error) {
	if len(expression) > MaxExpression {
		return Constraint{}, fmt.Errorf("%d bytes long, at most %d are allowed", len(expression), MaxExpression)
	}
	at, equal := operator(expression)
	if at < 0 {
		return Constraint{}, errors.New("expected one operator from ==, !=")
	}
	c := Constraint{equal: equal, value: strings.TrimSpace(expression[at+2:])}
	if !valuePattern.MatchString(c.value) {
		return Constraint{}, fmt.Errorf("value '%s' is invalid", clip(c.value))
	}
	if err := c.setKey(strings.TrimSpace(expression[:at])); err != nil {
		return Constraint{}, err
	}
	if c.key == "node.ip" {
		var err error
		if c.prefix, err = parsePrefix(c.value); err != nil {
			return Constraint{}, err
		}
	}
	return c, nil
}

// operator returns the place of the first operator, or -1, and whether it is "==".
func operator(expression string) (at int, equal bool) {
	eq, ne := strings.Index(expression, "=="), strings.Index(expression, "!=")
	if eq >= 0 && (ne < 0 || eq < ne) {
		return eq, true
	}
	return ne, false
}

func (c *Constraint) setKey(key string) error {
	lower := strings.ToLower(key)
	for _, prefix := range []string{nodeLabelPrefix, engineLabelPrefix} {
		if !strings.HasPrefix(lower, prefix) {
			continue
		}
		c.key, c.label = prefix, key[len(prefix):]
		if !labelPattern.MatchString(c.label) {
			return fmt.Errorf("key '%s' is invalid: after %s comes the name of a label", clip(key), prefix)
		}
		return nil
	}
	switch lower {
	case "node.id", "node.hostname", "node.ip", "node.role", "node.platform.os", "node.platform.arch":
		c.key = lower
		return nil
	default:
		return fmt.Errorf("key '%s' is invalid: use %s", clip(key), keyList)
	}
}

func parsePrefix(value string) (netip.Prefix, error) {
	if strings.Contains(value, "/") {
		prefix, err := netip.ParsePrefix(value)
		if err != nil {
			return netip.Prefix{}, fmt.Errorf("value '%s' is not an IP prefix such as 10.0.0.0/8", clip(value))
		}
		return prefix.Masked(), nil
	}
	addr, err := netip.ParseAddr(value)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("value '%s' is neither an IP address nor a prefix such as 10.0.0.0/8", clip(value))
	}
	addr = addr.Unmap()
	return netip.PrefixFrom(addr, addr.BitLen()), nil
}

// String returns the constraint in the form that [Parse] reads.
func (c Constraint) String() string {
	op := "!="
	if c.equal {
		op = "=="
	}
	return c.key + c.label + op + c.value
}

// Match reports whether all constraints hold for the node.
func (s Set) Match(node *api.Node) bool {
	for _, c := range s {
		if !c.Match(node) {
			return false
		}
	}
	return true
}

// Match reports whether the constraint holds for the node.
func (c Constraint) Match(node *api.Node) bool {
	return c.same(node) == c.equal
}

func (c Constraint) same(node *api.Node) bool {
	switch c.key {
	case "node.id":
		return strings.EqualFold(node.GetId(), c.value)
	case "node.hostname":
		return strings.EqualFold(node.GetDescription().GetHostname(), c.value)
	case "node.ip":
		return c.contains(node.GetStatus().GetAddress())
	case "node.role":
		return strings.EqualFold(role(node.GetRole()), c.value)
	case "node.platform.os":
		return strings.EqualFold(node.GetDescription().GetPlatform().GetOs(), c.value)
	case "node.platform.arch":
		return architecture(node.GetDescription().GetPlatform().GetArchitecture()) == architecture(c.value)
	case nodeLabelPrefix:
		return c.sameLabel(node.GetSpec().GetAnnotations().GetLabels())
	case engineLabelPrefix:
		return c.sameLabel(node.GetDescription().GetEngineLabels())
	default:
		return false
	}
}

func (c Constraint) sameLabel(labels map[string]string) bool {
	value, ok := labels[c.label]
	return ok && strings.EqualFold(value, c.value)
}

// contains reports whether an address, with or without a port, lies in the prefix.
func (c Constraint) contains(address string) bool {
	if host, _, err := net.SplitHostPort(address); err == nil {
		address = host
	}
	addr, err := netip.ParseAddr(address)
	return err == nil && c.prefix.Contains(addr.Unmap().WithZone(""))
}

func role(r api.Role) string {
	switch r {
	case api.Role_ROLE_MANAGER:
		return "manager"
	case api.Role_ROLE_WORKER:
		return "worker"
	default:
		return ""
	}
}

// architecture returns Go's word for an architecture that may be written in the kernel's.
func architecture(name string) string {
	name = strings.ToLower(name)
	switch name {
	case "x86_64", "x86-64":
		return "amd64"
	case "aarch64", "arm64/v8":
		return "arm64"
	case "i386", "i486", "i586", "i686", "x86":
		return "386"
	case "armhf", "armv7l", "armv6l", "armel":
		return "arm"
	default:
		return name
	}
}
