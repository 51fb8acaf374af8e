"""What was pickled arrives whole: out of memory that may not be written to, and from older versions."""

import base64
import copy
import dataclasses
import io
import pickle
import zlib

import numpy as np
import pytest
from support import bits, pair, parameters, sequence

import fastrnn
from fastrnn import RNN, CharRNN, LanguageModel, SequenceModel, SimpleRNN, diagnostics
from fastrnn.optim import SGD, Adagrad, Adam, RMSprop
from fastrnn.text.vocabulary import Vocabulary

# -- ways to travel ------------------------------------------------------------------------------------


def out_of_band(thing, tmp_path):
    """Protocol 5, each array in a buffer that cannot be written to."""
    buffers = []
    data = pickle.dumps(thing, 5, buffer_callback=buffers.append)
    frozen = [bytes(buffer.raw()) for buffer in buffers]
    assert frozen
    return pickle.loads(data, buffers=frozen)


def mapped(mode):
    def travel(thing, tmp_path):
        joblib = pytest.importorskip("joblib")
        file = tmp_path / f"{len([*tmp_path.iterdir()])}"  # what is mapped must not be written over
        joblib.dump(thing, file)
        return joblib.load(file, mmap_mode=mode)

    return travel


#: "r" is what `joblib.Parallel` hands to its workers for arrays of more than a megabyte.
WAYS = {
    "out of band": out_of_band, "mapped r": mapped("r"), "mapped c": mapped("c"),
    "in band": lambda thing, tmp_path: pickle.loads(pickle.dumps(thing)),
    "deepcopy": lambda thing, tmp_path: copy.deepcopy(thing),
}  # fmt: skip
ways = pytest.mark.parametrize("way", WAYS)


def arrays_in(value, seen=None):
    """Every array that can be reached from an object of the package."""
    seen = {} if seen is None else seen
    if id(value) in seen:
        return []
    seen[id(value)] = value
    if isinstance(value, np.ndarray):
        return [value]
    if isinstance(value, dict):
        return [a for entry in value.values() for a in arrays_in(entry, seen)]
    if isinstance(value, (list, tuple)):
        return [a for entry in value for a in arrays_in(entry, seen)]
    if not type(value).__module__.startswith("fastrnn"):
        return []
    slots = [
        name
        for kind in type(value).__mro__
        for name in getattr(kind, "__slots__", ())
        if name != "__weakref__"
    ]
    inside = [getattr(value, name, None) for name in slots] + [*getattr(value, "__dict__", {}).values()]
    return [a for entry in inside for a in arrays_in(entry, seen)]


def assert_usable(thing):
    arrays = arrays_in(thing)
    assert arrays
    for a in arrays:
        assert type(a) is np.ndarray
        assert a.flags.writeable or not a.size


# -- read-only arrivals ---------------------------------------------------------------------------------


@ways
def test_simple_rnn(way, dtype, backend, tmp_path):
    rnn, _ = pair(4, 9, 5, backend=backend, dtype=dtype)
    rnn.mine = {"list": [np.ones(3)], "number": 1}
    args = sequence(12, 4, 9, 5, dtype=dtype)
    other = WAYS[way](rnn, tmp_path)
    assert_usable(other)
    other.mine["list"][0][:] = 2
    for network in (rnn, other):
        network.train_step(*args)
        network.update_weights(network.loss_and_grads(*args)[1])
    assert bits(*parameters(other)) == bits(*parameters(rnn))
    assert rnn.mine["list"][0][0] == 1


@ways
def test_steps(way, dtype, backend, tmp_path):
    rnn, _ = pair(4, 9, 5, backend=backend, dtype=dtype)
    inputs, targets, h_prev = sequence(12, 4, 9, 5, dtype=dtype)
    for looked, edited in ((False, False), (True, False), (True, True)):
        mappings = rnn.forward(inputs, h_prev)
        for steps in mappings if looked else ():
            steps[3][0] = 0.5
        for steps in mappings if edited else ():
            steps[4], steps[5] = steps[5], steps[4]
        others = [WAYS[way](steps, tmp_path) for steps in mappings]
        assert bits(*rnn.backward(*others, targets)) == bits(*rnn.backward(*mappings, targets))
        for steps in (*mappings, *others):
            steps[2][1] = 0.25
            steps[6] *= 0.5
        for steps in others:
            assert_usable(steps)
        assert bits(*rnn.backward(*others, targets)) == bits(*rnn.backward(*mappings, targets))


@ways
@pytest.mark.parametrize(
    "make",
    [
        lambda backend: SGD(0.1, momentum=0.9, backend=backend), lambda backend: Adagrad(0.1, backend=backend),
        lambda backend: RMSprop(0.1, momentum=0.9, centered=True, backend=backend),
        lambda backend: Adam(0.1, backend=backend),
    ],
)  # fmt: skip
def test_optimizers(make, way, dtype, backend, tmp_path):
    rng = np.random.default_rng(0)
    W, g = {"W": rng.normal(size=(9, 7)).astype(dtype)}, {"W": rng.normal(size=(9, 7)).astype(dtype)}
    optimizer = make(backend)
    optimizer.step(W, g)
    other, V = WAYS[way](optimizer, tmp_path), {"W": W["W"].copy()}
    assert_usable(other)
    for _ in range(3):
        optimizer.step(W, g)
        other.step(V, g)
    assert bits(*V.values()) == bits(*W.values())
    first, second = optimizer.state_dict()["state"], other.state_dict()["state"]
    assert all(bits(*first[slot].values()) == bits(*second[slot].values()) for slot in first)


@ways
def test_language_model_and_its_optimizer(way, dtype, backend, tmp_path):
    lm = LanguageModel(7, 12, 2, dtype=dtype, rng=0, backend=backend)
    lm.mine = [np.ones(3)]
    optimizer = Adam(0.1, backend=backend)
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 7, (2, 6, 3))
    lm.train_step(x, y, None, optimizer)
    other, twin = WAYS[way]((lm, optimizer), tmp_path)
    assert_usable(other)
    assert_usable(twin)
    for _ in range(2):
        wanted, got = lm.train_step(x, y, None, optimizer), other.train_step(x, y, None, twin)
        assert got[0] == wanted[0]
    assert bits(*other.parameters.values()) == bits(*lm.parameters.values())


@ways
@pytest.mark.parametrize(
    "options",
    [{}, {"head": "last", "loss": "gaussian", "cell": "lstm", "bidirectional": True},
     {"head": "mean", "loss": "cross_entropy", "dropout": 0.3, "recompute_every": 2}],
    ids=["each", "last", "mean"],
)  # fmt: skip
def test_sequence_model_and_its_optimizer(options, way, dtype, backend, tmp_path):
    sm = SequenceModel(4, 9, 3, 2, dtype=dtype, rng=0, backend=backend, **options)
    optimizer, rng = Adam(0.1, backend=backend), np.random.default_rng(1)
    x, rows = rng.normal(size=(6, 5, 4)).astype(dtype), (6, 5) if sm.head == "each" else (5,)
    y = rng.integers(3, size=rows) if sm.head == "mean" else rng.normal(size=(*rows, 3)).astype(dtype)
    more = {"lengths": [3, 6, 1, 2, 6], "weights": [1, 0, 2, 1, 1]}
    sm.train_step(x, y, None, optimizer, **more)
    other, twin = WAYS[way]((sm, optimizer), tmp_path)
    assert_usable(other)
    assert repr(other) == repr(sm)
    assert (other.head, other.recompute_every, other.bidirectional) == (
        sm.head,
        sm.recompute_every,
        sm.bidirectional,
    )
    assert (len(other._spaces), other.grads) == (0, {})
    for _ in range(2):
        wanted, got = (m.train_step(x, y, None, o, **more) for m, o in ((sm, optimizer), (other, twin)))
        assert got[0] == wanted[0]
    assert bits(*other.parameters.values()) == bits(*sm.parameters.values())
    assert bits(other.forward(x)[0]) == bits(sm.forward(x)[0])


@ways
def test_layer(way, dtype, backend, tmp_path):
    rnn = RNN(4, 9, 2, bidirectional=True, dtype=dtype, rng=0, backend=backend)
    x = np.random.default_rng(0).normal(size=(6, 3, 4)).astype(dtype)
    other = WAYS[way](rnn, tmp_path)
    assert_usable(other)
    for network in (rnn, other):
        out, _ = network.forward(x)
        network.backward(np.ones_like(out))
        for W, g in zip(network.parameters.values(), network.grads.values(), strict=True):
            W -= 0.1 * g
    assert bits(*other.parameters.values()) == bits(*rnn.parameters.values())


@ways
def test_char_rnn(way, backend, tmp_path):
    model = CharRNN(8, seq_len=8, batch_size=2, epochs=2, random_state=0, backend=backend, verbose=0)
    model.fit("hello world. " * 30)
    other = WAYS[way](model, tmp_path)
    assert_usable(other)
    assert other.generate(20, random_state=1) == model.generate(20, random_state=1)
    for m in (model, other):
        m.partial_fit("hello world. " * 9)
    assert other.score("hello world. ") == model.score("hello world. ")


@ways
def test_results_of_diagnostics(way, backend, tmp_path):
    rnn, _ = pair(4, 9, 5, backend=backend)
    inputs, targets, h_prev = sequence(12, 4, 9, 5)
    for result in (
        diagnostics.gradient_flow(rnn, inputs, targets), diagnostics.jacobian_norms(rnn, inputs),
        diagnostics.saturation(rnn, inputs), diagnostics.hidden_states(rnn, inputs, h_prev),
    ):  # fmt: skip
        other = WAYS[way](result, tmp_path)
        assert type(other) is type(result)
        assert_usable(other)
        assert bits(*arrays_in(other)) == bits(*arrays_in(result))
        with pytest.raises(dataclasses.FrozenInstanceError):
            other.loss = 1


def test_vocabulary(tmp_path):
    for way in ("in band", "deepcopy", "mapped r"):
        vocabulary = WAYS[way](Vocabulary("abc"), tmp_path)
        assert vocabulary == Vocabulary("abc")
        assert vocabulary.decode(vocabulary.encode("cab")) == "cab"


def test_workers_train_what_they_are_given():
    """`joblib.Parallel` maps arrays of more than a megabyte into its workers, to be read only."""
    joblib = pytest.importorskip("joblib")
    args = ([0, 1, 2], [1, 2, 0], np.zeros((400, 1)))

    def train(thing):
        if hasattr(thing, "Whh"):
            thing.train_step(*args)
        else:
            thing.step({"W": np.ones((400, 400))}, {"W": np.ones((400, 400))})
        return thing

    rnn, optimizer = SimpleRNN(3, 400, 3, rng=0, backend="numpy"), Adam(0.1, backend="numpy")
    train(optimizer)
    other, twin = joblib.Parallel(n_jobs=2, max_nbytes="1M")(
        joblib.delayed(train)(thing) for thing in (rnn, optimizer)
    )
    assert bits(*parameters(other)) == bits(*parameters(train(rnn)))
    assert str(twin.state_dict()) == str(train(optimizer).state_dict())


# -- older versions ---------------------------------------------------------------------------------------

#: Made before the weights of a `SimpleRNN` were attributes: a model of float32 that has been trained, with an
#: attribute of its own; mappings of `forward` (one of them looked at); optimizers.
OLD = (
    "c-n1M>wgnP6iwPfORVxnq@v&hf<on43n>H?2oepr<q;8xyU8XKX*N08O`%|*71~lL4+RtoB4R}mlmc3W0@ay+#Gjx1=AVFfcJtsh"
    "A9iN$?wot>J@?MGSLEUHhAUkzSJp7#j>c8fqE)?_Ol4YhPqRHKp^yg^vpP_jN0m2RL0?B=7!j;+mJB0<mCh2VChJK11FJ2gqb6$P"
    "Qkgc7z4Ks{{aJh=JUs`y@r;66FCBH0tqISDLZP(}XxNXS%ffS7xJE*?sM&;WS{NM&{P*C&-(+&^ni}1q8!?OtkD#sX2xG(5@|DTd"
    "jBa8a!3Qh4FrKE$E=&kk$Y~<&++CPNJDQ%iFxfejQL}2w#0y@BbbTb6&g%84T#J=dvstyx6Upk)v_TolMJ*4e6k;=C&Rf(4U7dI_"
    "O2=Y))b!|vTzD|m4p75Oc4AsoD{0Kb%UzhJV0t%RQShoa=yrI%#%g=m)bMorZs+7hK7LSK9oxiv>(=?iiSf<+F25_zO==PsHuEDs"
    "yv_(@hJu+Eyc(OrZ1=MmVZNc@O$U>ro$X*QAxzOP&hu-0Nc8RH_kH5##<WlLiNni%{J<)HYO%ODm*4d9zD?pfADYcii&Oj#-#?O{"
    "=R=qyoz*LN%fj4}vw70ld<6@nGdr~l9cMGhSz@B-_3=YnMIXN{PKz5M^4niiC4(@<C4Q$~4D$ZPSR{cP6ufPru>`zW0xwbEbD|)X"
    "njGM91iV08naBrSjr>>x?-TvJy8%lj$T9_f3(HF&D<sG}3f^_t5y(mhWRwJ1P{#)o@wx`Al4n;d2v}I7S$NMb(UvUM2K=(rXyi28"
    "w#!7Y+#r^oF+J-HeNEbGw%2%{I^=^;9w9HQVYPNmM$F`H9qXtkWPv4(STaggxxUEoL&;E4&}@g<i4DwYkYpn^$_Ck_U^7)Pd$Kjc"
    "nha#Jt32F~&G<;hwMD_l7Pe|mPug{gZLHbZ#*<m<s_j8nt_u+-MrPuZ$6_o*r&4qpMHlt5ZAJbu$zN9xm;9@w{s||;OI?qSIeRpp"
    "7~n_3zVL<#O}uMXb<<4Vv4Lvgq&UHk`S@9JxvFW4I6$V>)%>^*OtMcZ_|(D<jcvCBCz>q|&5Vf@lZ*^vlzxa&MlyneY^kM8htV`T"
    "wa?}9yTz~=UN*w*@{3#I9xcT^vQ~@xw1g#{<`lGA*hx<9#O!i%*OE@}&|_$0Qsv#`b&stwBW>CGP?^AIl0aU;UZ?1Yz`k<jI)k_S"
    "3lCDMUApX0@VSNkMVAM(a235%V`>VWB{k9+E1B}FAfpFeM4~&7gI+d<jdd<V`I_z~^yG2K%cyv7pOK@_u0u_?)Ok2us_2q&K6(TG"
    "e+x$W8z8N5B(Q8%+tGjK_AUw6%9}_}CYTkWJB^CxXrLHIF6@zh=?;w8g@R*2w^LW9rCK_U=kbNtu6un~CZe_`@MRt+?7MI?P8RcZ"
    "O6Kb;1z+3w>cr_n3&b07Mz%nog0oL=fpc~Xj4!2CT<{kb1AG|Y$h@9c@U4XlnrTxl(1@78cX?c7B@W+94*d##C~&yM&OWM`I9`JG"
    "<41}7lY+|@e%8#K6S9`h(U0g#h^`8mMKck@)yI@;4y^Rx7ZUE*Jg$*&Ax2US*isc$kwT`@Dc!JgDO@kx<%LDMXLKWJBygi70V}Iv"
    "pEc+&sb|xzxY?6qBnKl6ehZI&2sNVR;&DBT-}4wOC*YP$z#j^37ZPyii3AMzi>r1F$pqY0aL>Yh%`{mlYD3?NVJ1WTGmpQDA@YYq"
    "WY^2&pBe{qsJkR}VMFKY{|84z)g%"
)


def old():
    return pickle.loads(zlib.decompress(base64.b85decode(OLD)))


def test_an_old_simple_rnn():
    rnn = old()["rnn"]
    assert list(vars(rnn))[:8] == ["lr", "Wxh", "Whh", "Why", "bh", "by", "input_size", "hidden_size"]
    assert not [name for name in vars(rnn) if name.startswith("_")]
    assert repr(rnn) == "SimpleRNN(2, 3, 2, dtype=float32)"
    assert rnn.lr == 0.5
    assert np.allclose(rnn.Wxh, [[0.0027632990, 0.0089064911], [0.0031602112, -0.0128831444],
                                 [0.0092079006, 0.0043134540]], rtol=1e-7)  # fmt: skip
    assert np.allclose(rnn.by.ravel(), [-2.312660e-06, 2.315640e-06], rtol=1e-5)
    twin = SimpleRNN(2, 3, 2, dtype=np.float32, backend="numpy")
    for name in ("Wxh", "Whh", "Why", "bh", "by"):
        setattr(twin, name, getattr(rnn, name).copy())
    args = ([0, 1, 1], [1, 0, 1], np.full((3, 1), 0.5))
    with fastrnn.use_backend("cython" if fastrnn.backend() == "cython" else "numpy"):
        assert rnn.train_step(*args)[0] == twin.train_step(*args)[0]  # its own backend: NumPy
    assert bits(*parameters(rnn)) == bits(*parameters(twin))
    with pytest.raises(ValueError, match="Wxh must have shape"):
        rnn.Wxh = np.zeros((3, 3))


def test_old_mappings():
    found = old()
    xs, hs, ps, looked = (found[name] for name in ("xs", "hs", "ps", "looked"))
    assert xs.indices.tolist() == [0, 1, 1]
    assert looked.indices is None
    assert looked.array.tolist() == [[0, 1], [1, 0]]
    assert list(hs) == [-1, 0, 1, 2]
    assert hs.array[1].astype(float).round(4).tolist() == [0.0035, 0.0033, 0.0091]
    grads = found["rnn"].backward(xs, hs, ps, [1, 0, 1])
    hs[0], hs[1] = hs[1], hs[0]
    del ps[2], xs[2]
    assert bits(*found["rnn"].backward(xs, hs, ps, [1, 0])) != bits(*grads)
    looked[0] *= 2
    assert looked.array.tolist() == [[0, 2], [1, 0]]


def test_old_optimizers():
    found = old()
    adam, sgd, new = (found[name] for name in ("adam", "sgd", "new"))
    assert repr(adam) == "Adam(lr=0.1, betas=(0.5, 0.75), eps=1e-08, weight_decay=0.0, amsgrad=False)"
    assert (adam.num_steps, sgd.num_steps, new.num_steps) == (1, 1, 0)
    assert sgd.state_dict()["state"]["momentum_buffer"]["W"].tolist() == [1, -2]
    W = {"W": np.zeros(2)}
    sgd.step(W, {"W": np.array([1.0, 1.0])})
    assert W["W"].tolist() == [-0.5 * 1.5, -0.5 * 0.0]
    adam.betas = (0.5, 0.5)
    adam.step(W, {"W": np.ones(2)})
    new.momentum = 0.5
    new.step(W, {"W": np.ones(2)})
    with pytest.raises(AttributeError, match="no setting 'moment'"):
        new.moment = 1


#: A `CharRNN` of version 0.2 with the best weights in use, from before `newline` was there.
OLD_CHAR_RNN = (
    "cwXgJX>1!s6m}9P@sWT-BZ{D^fPx4DLJm7efjT9r3|(rX1_5e?hVky$vt+%y-J@wLs3-zTtAQV6pnyQ23ULSo5)wa<fCz**esH%?wVVP"
    "fj;bI50>t@dcGq@7CEz#v!=CqM-g`6e_};s|^^UEbG5N7f8M~fin!PH;4uS<|?c=aqUo7%De&%+59q(ajs%siCk*jYdTxn)0)2|`}&l1"
    "PwN)u~$$tGkFlPhtSDq&BhwUbH9_Vg+c4reWHMdPg5aCjmANoYP{I7lNZo(0}_Aup~Py3JYKw45qu#|R2})FCdl42>7Yy2Eqrnq%3P@9"
    "{#w09G5ZEtR^`aushuu19Q_7g<^oM72y!kV`gWL)WmUTP7+ySQQJnz%zG??;dtcxJ?k*Oq^K|NZ4?gm@2%fg|%wltWCgAWy8YW-~eYG4"
    "mLHb3g$qFD>0T94ib09THv7)R;P&x&u@htdzQ15N{KpcTe|6i{!E>!+3eDETrn-z(^a>|Z1>G+)0#2G5?Ce6mG)Ao!OxvhNF@*aK2?~g"
    "$1;JUyU=B<4V5e(mPODYt{nJF$-pTgY?-c*q3MQzRjn#9J-^!E^`wTYHZgUx(!lJPA$o;+QFLqkgh{}PV{PU;eXt+6>^kn3SbDRi;*xJ"
    "*XBKgGT=a@M7rb_PotT4M!X<taU(Z>B>aJ%=x!UU?U1mf!UleQw9_SG+h>K@(CBa%{x`+U!JO}G0GO_1EA{^>m-SgG?%UMb$Ld5+%x9y"
    "=Pl%H9$;$UEk>@4J8IbkyO;tAI`x+o(`$wfAC!jyxYJvf*w-@AnP!kc4Cimq0g>4k;-XS)v``S$y5bi7C>3i&tl^yx#|o(5fXO=0YlrR"
    "(<G`006}XeJUpIJ)t)OJ6#dju-N8eER#fXT0nS75lb5e8q7`?pmbc%U#Qp4`lZHgmsp{`zQ#Fi)2DXfzl~5`Z!x66SNnpmP2}BO&ne2E"
    "Dd#HRZD)k3>h}Zd+y8x+GF?quqOZd==A(4w@=KYA7k?(tHJ^i0V-$t&Rcdsh<c!Kn$G9NVsY)C@W~$~=JAr!tTf-uS<^W8L?olzP<b1="
    "u5RhVvE*}aeXt_`^4qtqdVJ%KRh&)*vh)fmnJVen4PPPT5~18)HgSQGJtr^E-?Z>_-AZ)&@Dm@dI`;C@<`<m~Zza&C@lN|De|i3e`@eX"
    "8+1-!i&zL<ckZQP7LRyKWA{)8k$5tI+Zt#N0hR+hUu&}rY6XY_0Y&~4E6xTMI|GV=Sn5P^5ga0V{N2gKkA3a6&|KJ{K{tK@pk?mL&K!2"
    "Clo0Y6qfj2BM8ST~(E<UXbq-`ndp2S%!5MH*bN!I34JdhjWYz&X!zS3}x<odItxooaa9U$fYa(Otbl}GvpfK<tdhI50X+5SN_mmMS{xp"
    "H}^R2~}54G-srMtA`7a36xJqT@ux$<h*41hP4v#8Sg@UF0r+%!GiCMZAs~xVJS^7fi}x4bdko@{k!IScY{u0>44K4$TS4tWjcqiS{>!;"
    "hmLz^UJq4%^&C=%x_wKu?$0#2*i#kPul~dGR0V2B;A69jlMvzsV+#pe|1bmv1}QJHA6I+#jW73Hl>L!tv6Acq$%32#AyQdx@*lCdPLRI"
    "hyg`$d=z~Hn-w2d2$DNcCYOYab&{?nLIyd2zg63B=;X~v6VpL6qQT!L@s~!L4o8EA2i+hon_+#x=>)Vl4c#Qz(LHEGaSxjmdO7Gfe7+O"
    "9<xxfv6rdoTqCJ3#9a3e(NRULeB)$bS37~*QM_?6#UL`KSN*4SEC{4}d7@`E5!b(Gv^Prh?)^<s-QG2?`bDM;a5!T#>@E^(Y(&Vom@=Q"
    "VbbSa&J?kH!stHGRYU^P+#Smx`7r-O%Bt83`00C**)#ESyn;gTOI8KpZQ5D+ITrv`)uM4vJc5IPWJ%0xhzKujv@CE>#W09n{@Yx*uI-3"
    "z+*fr|G)@_i84@3R(1)O~l*rh>t%7umWxZNN;HL8wAZ;$Ud`NQED`Bt62q5jfcU`&QKLYHHNVP!`@dIbMMOIXPSicXlq2t{nhJgyTyO{"
    "dHGY*V(^yef;E0r)O7O-2Y&5_YX1F0%gf}Wgd06OguZd{mL6o{AuOE1GldBS&Bkm@L}A8%!m0cA(o^9y%nmLow(pqi%g${kUhHv`DXBB"
    "G)0IuMK<|zI-TR!#F_+@EaI*`b<fu=($75*vRETHw0|@9$I!~5OYe(4ReX5sJ+E>)$(sF!woNZPO4E)<0IkH&1o~!Pl5<$f2C%IXiMId"
    "8ZY4&ry{}#SOnmEM$mbNACU%I`MJRYp2N0?N1n%@py?+56{QYw"
)

#: What has moved since, and where to.
MOVED = {
    ("fastrnn.vocabulary", "Vocabulary"): "fastrnn.text.vocabulary",
    ("fastrnn.training", "Progress"): "fastrnn.text.snapshot",
    ("fastrnn.shown", "History"): "fastrnn.text.history",
}


class Moved(pickle.Unpickler):
    def find_class(self, module, name):
        return super().find_class(MOVED.get((module, name), module), name)


def test_an_old_char_rnn():
    model = Moved(io.BytesIO(zlib.decompress(base64.b85decode(OLD_CHAR_RNN)))).load()
    assert (model.weights_, model.step_, model.epoch_, model.best_step_) == ("best", 16, 2, 16)
    assert model.newline is None
    assert sorted(name for name in vars(model) if name not in model.get_params()) == [
        "_diverged", "_kept_step", "_run",
    ]  # fmt: skip
    assert [entry["train_nats"] for entry in model.history_] == pytest.approx(
        [0.6891, 0.6123, 0.4254], abs=1e-4
    )
    assert model.best_valid_nats_ == pytest.approx(0.24127167)
    assert model.score("abab") == pytest.approx(-0.21356108, rel=1e-5)
    with pytest.warns(UserWarning, match="checkpoint is None"):
        model.set_params(epochs=4).fit("ab" * 40, resume=True)
    assert (model.step_, len(model.history_)) == (32, 7)
    assert model.score("abab") == pytest.approx(-0.04627879, rel=1e-4)
    assert model.generate(8, "a", temperature=0) == "babababa"
