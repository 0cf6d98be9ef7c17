package lint

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
)

// value is a JSON value that knows where it stands. A nil value is one that is absent.
type value struct {
	offset  int      // of its first byte in the file
	key     string   // in an object
	keyAt   int      // offset of the key
	kind    byte     // one of { [ " 0 b n: object, array, string, number, bool, null
	text    string   // of a string, a number or a bool
	members []*value // of an object or an array, in the order of the file
}

// parseError says what is wrong at an offset.
type parseError struct {
	offset int
	text   string
}

// parse reads one JSON document.
func parse(data []byte) (*value, *parseError) {
	var whole any
	if err := json.Unmarshal(data, &whole); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return nil, &parseError{max(0, int(syntax.Offset)-1), err.Error()}
		}
		return nil, &parseError{0, err.Error()}
	}
	r := reader{data: data, dec: json.NewDecoder(bytes.NewReader(data))}
	r.dec.UseNumber()
	return r.value(), nil
}

// reader walks over the tokens of a document that is known to be valid.
type reader struct {
	data []byte
	dec  *json.Decoder
}

// token returns the next token and the offset of its first byte.
func (r *reader) token() (json.Token, int) {
	at := int(r.dec.InputOffset())
	at += len(r.data[at:]) - len(bytes.TrimLeft(r.data[at:], " \t\r\n,:"))
	token, _ := r.dec.Token()
	return token, at
}

func (r *reader) value() *value {
	token, at := r.token()
	v := &value{offset: at}
	switch t := token.(type) {
	case json.Delim:
		v.kind = byte(t)
		r.fill(v)
	case string:
		v.kind, v.text = '"', t
	case json.Number:
		v.kind, v.text = '0', t.String()
	case bool:
		v.kind, v.text = 'b', "false"
		if t {
			v.text = "true"
		}
	default:
		v.kind = 'n'
	}
	return v
}

// fill reads the members of an object or array up to its closing delimiter.
func (r *reader) fill(v *value) {
	for r.dec.More() {
		var key string
		var keyAt int
		if v.kind == '{' {
			token, at := r.token()
			key, keyAt = token.(string), at
		}
		member := r.value()
		member.key, member.keyAt = key, keyAt
		v.members = append(v.members, member)
	}
	_, _ = r.dec.Token()
}

// get returns what encoding/json takes for the field name: the last member whose key is the same but for case. A null is
// as good as absent.
func (v *value) get(name string) *value {
	if v == nil || v.kind != '{' {
		return nil
	}
	var found *value
	for _, m := range v.members {
		if strings.EqualFold(m.key, name) && m.kind != 'n' {
			found = m
		}
	}
	return found
}

// exact is get for an object that encoding/json decodes into a map: there the case of a key counts.
func (v *value) exact(name string) *value {
	if v == nil || v.kind != '{' {
		return nil
	}
	var found *value
	for _, m := range v.members {
		if m.key == name {
			found = m
		}
	}
	return found
}

// str is the text of a string, else "".
func (v *value) str() string {
	if v == nil || v.kind != '"' {
		return ""
	}
	return v.text
}

// isFalse says whether a value is there and is false.
func (v *value) isFalse() bool { return v != nil && v.kind == 'b' && v.text == "false" }

// list returns the elements of an array.
func (v *value) list() []*value {
	if v == nil || v.kind != '[' {
		return nil
	}
	return v.members
}
