package main

import (
	"errors"
	"regexp"
	"strings"
)

// conditionName is the type of a NodeCondition.
type conditionName string

var isConditionName = regexp.MustCompile(`^[A-Z][A-Za-z0-9]{2,62}$`)

func (n *conditionName) String() string { return string(*n) }

func (n *conditionName) Set(s string) error {
	if !isConditionName.MatchString(s) {
		return errors.New("want a name such as CNITeardownFailing")
	}
	*n = conditionName(s)
	return nil
}

// names are separated by commas.
type names []string

func (n *names) String() string { return strings.Join(*n, ",") }

func (n *names) Set(s string) error {
	for name := range strings.SplitSeq(s, ",") {
		if name == "" || strings.TrimSpace(name) != name {
			return errors.New("want names separated by commas, such as kubelet,k3s")
		}
		*n = append(*n, name)
	}
	return nil
}

// expressions match as node-problem-detector's log rules do: up to the end of
// the message.
type expressions []*regexp.Regexp

func (e *expressions) String() string { return "" }

func (e *expressions) Set(s string) error {
	if s == "" {
		return errors.New("want a regular expression")
	}
	if _, err := regexp.Compile(s); err != nil {
		return err
	}
	re, err := regexp.Compile(`(?:` + s + `)\z`)
	if err != nil {
		return err
	}
	*e = append(*e, re)
	return nil
}

// find returns where the first expression that matches does, -1 if none does.
func (e expressions) find(message []byte) int {
	for _, re := range e {
		if at := re.FindIndex(message); at != nil {
			return at[0]
		}
	}
	return -1
}
