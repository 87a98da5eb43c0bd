package constraint

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
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
	// elementPattern is valuePattern without what delimits a list.
	elementPattern = regexp.MustCompile(`^[A-Za-z0-9:\-_\s.*?+\[\]\\^$|/]+$`)
	wordPattern    = regexp.MustCompile(`(?is)^(\S+)\s+(not\s+)?(in\s*\((.*)\)|exists)$`)
	numberPattern  = regexp.MustCompile(`^-?[0-9]{1,15}(\.[0-9]{1,9})?$`)
)

// Set is a list of constraints that must all hold. The empty set holds for every node.
type Set []Constraint

// operation is what a constraint asks of the value under its key.
type operation string

const (
	opEqual   operation = "=="
	opIn      operation = "in"
	opExists  operation = "exists"
	opLess    operation = "<"
	opGreater operation = ">"
)

// Constraint is one comparison. The zero value is none; every other comes from [Parse].
type Constraint struct {
	key    string // one of the fixed keys, or a label prefix
	label  string // after a label prefix, in its own case
	text   string // as it was written
	op     operation
	negate bool     // the opposite must hold: != for ==
	values []string // one for each that will do; none for exists
	// prefixes are the values of node.ip.
	prefixes []netip.Prefix
	// number is the value of < and >.
	number float64
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
		c.text = expression
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
	c, key, err := split(expression)
	if err != nil {
		return Constraint{}, err
	}
	if err := c.setKey(key); err != nil {
		return Constraint{}, err
	}
	if (c.op == opLess || c.op == opGreater) && !c.ofLabel() {
		return Constraint{}, fmt.Errorf("%s compares numbers, and key '%s' is no label: use %sLABEL or %sLABEL", c.op, clip(key), nodeLabelPrefix, engineLabelPrefix)
	}
	if c.key != "node.ip" {
		return c, nil
	}
	for _, value := range c.values {
		prefix, err := parsePrefix(value)
		if err != nil {
			return Constraint{}, err
		}
		c.prefixes = append(c.prefixes, prefix)
	}
	return c, nil
}

// split reads all but the key, which it returns as it was written. Swarm's operators come first, whatever else an expression has:
// what Swarm accepts keeps its meaning.
func split(expression string) (c Constraint, key string, err error) {
	if at, found := swarmOperator(expression); at >= 0 {
		c.op, c.negate = opEqual, found == "!="
		value := strings.TrimSpace(expression[at+len(found):])
		if !valuePattern.MatchString(value) {
			return c, "", fmt.Errorf("value '%s' is invalid", clip(value))
		}
		c.values = []string{value}
		return c, strings.TrimSpace(expression[:at]), nil
	}
	if at := strings.IndexAny(expression, "<>"); at >= 0 {
		c.op = operation(expression[at : at+1])
		value := strings.TrimSpace(expression[at+1:])
		if !numberPattern.MatchString(value) {
			return c, "", fmt.Errorf("value '%s' is no number such as 16 or 2.5", clip(value))
		}
		c.values = []string{value}
		c.number, err = strconv.ParseFloat(value, 64)
		return c, strings.TrimSpace(expression[:at]), err
	}
	return splitWords(strings.TrimSpace(expression))
}

// swarmOperator returns the place of the first == or !=, and which it is; -1 is none.
func swarmOperator(expression string) (at int, found string) {
	eq, ne := strings.Index(expression, "=="), strings.Index(expression, "!=")
	if eq >= 0 && (ne < 0 || eq < ne) {
		return eq, "=="
	}
	return ne, "!="
}

// splitWords reads the operators that are words.
func splitWords(expression string) (c Constraint, key string, err error) {
	parts := wordPattern.FindStringSubmatch(expression)
	if parts == nil {
		return c, "", errors.New("expected one operator from ==, !=, in (…), not in (…), exists, not exists, <, >")
	}
	c.negate, c.op = parts[2] != "", opExists
	if strings.EqualFold(parts[3], string(opExists)) {
		return c, parts[1], nil
	}
	c.op = opIn
	for element := range strings.SplitSeq(parts[4], ",") {
		element = strings.TrimSpace(element)
		if !elementPattern.MatchString(element) {
			return c, "", fmt.Errorf("value '%s' is invalid", clip(element))
		}
		c.values = append(c.values, element)
	}
	return c, parts[1], nil
}

func (c Constraint) ofLabel() bool { return c.key == nodeLabelPrefix || c.key == engineLabelPrefix }

// setKey reads what of a node an expression is about.
func (c *Constraint) setKey(key string) error {
	if found, err := c.setLabel(key); found {
		return err
	}
	switch lower := strings.ToLower(key); lower {
	case "node.id", "node.hostname", "node.ip", "node.role", "node.platform.os", "node.platform.arch":
		c.key = lower
		return nil
	default:
		return fmt.Errorf("key '%s' is invalid: use %s", clip(key), keyList)
	}
}

// setLabel does so where that is a label, and reports whether it is.
func (c *Constraint) setLabel(key string) (found bool, err error) {
	for _, prefix := range []string{nodeLabelPrefix, engineLabelPrefix} {
		if !strings.HasPrefix(strings.ToLower(key), prefix) {
			continue
		}
		c.key, c.label = prefix, key[len(prefix):]
		if !labelPattern.MatchString(c.label) {
			return true, fmt.Errorf("key '%s' is invalid: after %s comes the name of a label", clip(key), prefix)
		}
		return true, nil
	}
	return false, nil
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
	subject, not := c.key+c.label, ""
	if c.negate {
		not = "not "
	}
	switch c.op {
	case opExists:
		return subject + " " + not + string(c.op)
	case opIn:
		return subject + " " + not + "in (" + strings.Join(c.values, ",") + ")"
	case opEqual:
		if c.negate {
			return subject + "!=" + c.values[0]
		}
		return subject + "==" + c.values[0]
	default:
		return subject + string(c.op) + c.values[0]
	}
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
	value, found := c.valueOf(node)
	return c.holds(value, found) != c.negate
}

// holds reports whether what stands before a "not" is true of a value.
func (c Constraint) holds(value string, found bool) bool {
	switch c.op {
	case opExists:
		return found
	case opLess, opGreater:
		number, err := strconv.ParseFloat(value, 64)
		return found && err == nil && numberPattern.MatchString(value) && (c.op == opLess && number < c.number || c.op == opGreater && number > c.number)
	case opEqual, opIn:
		return found && c.among(value)
	default:
		return false
	}
}

// among reports whether a value is one of the constraint's.
func (c Constraint) among(value string) bool {
	switch c.key {
	case "node.ip":
		return slices.ContainsFunc(c.prefixes, func(p netip.Prefix) bool { return contains(p, value) })
	case "node.platform.arch":
		return slices.ContainsFunc(c.values, func(v string) bool { return architecture(v) == architecture(value) })
	default:
		return slices.ContainsFunc(c.values, func(v string) bool { return strings.EqualFold(v, value) })
	}
}

// valueOf returns what a node has under the key, and whether it has anything.
func (c Constraint) valueOf(node *api.Node) (value string, found bool) {
	switch c.key {
	case "node.id":
		value = node.GetId()
	case "node.hostname":
		value = node.GetDescription().GetHostname()
	case "node.ip":
		value = node.GetStatus().GetAddress()
	case "node.role":
		value = role(node.GetRole())
	case "node.platform.os":
		value = node.GetDescription().GetPlatform().GetOs()
	case "node.platform.arch":
		value = node.GetDescription().GetPlatform().GetArchitecture()
	case nodeLabelPrefix:
		value, found = node.GetSpec().GetAnnotations().GetLabels()[c.label]
		return value, found
	case engineLabelPrefix:
		value, found = node.GetDescription().GetEngineLabels()[c.label]
		return value, found
	}
	return value, value != ""
}

// contains reports whether an address, with or without a port, lies in a prefix.
func contains(prefix netip.Prefix, address string) bool {
	if host, _, err := net.SplitHostPort(address); err == nil {
		address = host
	}
	addr, err := netip.ParseAddr(address)
	return err == nil && prefix.Contains(addr.Unmap().WithZone(""))
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
